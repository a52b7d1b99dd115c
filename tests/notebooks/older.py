"""A notebook as people have them, of TensorFlow 1 and 2.0, of which only the import of the explainers is new.

The words are ours; names and orders of arguments are those that such notebooks use. `# %%` begins a cell. It
is run in an empty folder, by Keras 3 and by Keras 2, and leaves what it found in `SAW`.
"""

# %%
import tensorflow as tf

tf.get_logger().setLevel(40)
tf.compat.v1.disable_v2_behavior()
import numpy as np
from tensorflow.keras.layers import Conv2D, Dense, Flatten, Input, MaxPooling2D, Reshape, UpSampling2D
from tensorflow.keras.models import Model, load_model
from tensorflow.keras.utils import to_categorical

from explainer_runtime import data
from explainer_runtime.alibi import CEM, AnchorImage, CounterFactual, Counterfactual, CounterFactualProto

# %%
tf.keras.utils.set_random_seed(0)
pictures = data.load("fashion_mnist", sample=True, scale=None)
x_train, y_train, x_test = pictures.x_train[:1500], pictures.y_train[:1500], pictures.x_test
x_train, x_test = x_train.astype("float32") / 255, x_test.astype("float32") / 255
x_train = np.reshape(x_train, (-1, 28, 28, 1))
x_test = np.reshape(x_test, (-1, 28, 28, 1))
xmin, xmax = -0.5, 0.5
x_train = ((x_train - x_train.min()) / (x_train.max() - x_train.min())) * (xmax - xmin) + xmin
x_test = ((x_test - x_test.min()) / (x_test.max() - x_test.min())) * (xmax - xmin) + xmin
y_train = to_categorical(y_train)


# %%
def cnn_model():
    x_in = Input(shape=(28, 28, 1))
    x = Conv2D(filters=8, kernel_size=2, padding="same", activation="relu")(x_in)
    x = MaxPooling2D(pool_size=4)(x)
    x = Flatten()(x)
    x_out = Dense(10, activation="softmax")(x)
    cnn = Model(inputs=x_in, outputs=x_out)
    cnn.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    return cnn


def ae_model():
    x_in = Input(shape=(28, 28, 1))
    encoded = Dense(16)(Flatten()(MaxPooling2D(2)(x_in)))
    decoded = UpSampling2D(2)(Reshape((14, 14, 1))(Dense(196)(encoded)))
    autoencoder = Model(x_in, decoded)
    autoencoder.compile(optimizer="adam", loss="mse")
    return autoencoder, Model(x_in, encoded)


cnn = cnn_model()
cnn.fit(x_train, y_train, batch_size=32, epochs=4, verbose=0)
cnn.save("cnn.h5")
ae, enc = ae_model()
ae.fit(x_train, x_train, batch_size=32, epochs=2, verbose=0)
ae.save("ae.h5")
enc.save("enc.h5")

# %% the nearest picture of something else, and how the search came to it
cnn = load_model("cnn.h5")
shape = (1,) + x_train.shape[1:]
X = x_test[0].reshape((1,) + x_test[0].shape)
cf = CounterFactual(
    cnn, shape=shape, target_proba=1.0, tol=0.2, target_class="other", max_iter=1000, lam_init=1e-1,
    max_lam_steps=10, learning_rate_init=0.1, feature_range=(x_train.min(), x_train.max()),
)  # fmt: skip
explanation = cf.explain(X)
pred_class = explanation["cf"]["class"]
n_cfs = np.array([len(explanation["all"][iter_cf]) for iter_cf in range(10)])
examples = [explanation["all"][iter_cf][0] for iter_cf in range(10) if n_cfs[iter_cf]]
SAW = {"cf": explanation, "steps": [point for found in explanation.all.values() for point in found]}

# %% towards a class that is named
cf = Counterfactual(cnn, shape=shape, target_class=7, tol=0.2, feature_range=(xmin, xmax))
SAW["sneaker"] = cf.explain(X=X)

# %% a session, and arguments by their places
sess = tf.compat.v1.Session()
ae = load_model("ae.h5")
cem = CEM(
    sess, cnn, "PN", shape, 0.0, 0.1, (x_train.min(), x_train.max()), 100, ae, 1e-2, 1000, 1.0, 2,
    clip=(-1000.0, 1000.0), no_info_val=-1.0,
)  # fmt: skip
explanation = cem.explain(X, verbose=False)
SAW["pn"] = (explanation["X"], explanation.X, explanation[cem.mode], explanation[f"{cem.mode}_pred"])
cem = CEM(cnn, mode="PP", shape=shape, feature_range=(xmin, xmax), gamma=100, ae_model=ae, no_info_val=-1.0)
SAW["pp"] = cem.explain(X)

# %% prototypes, with the model and with a function of it
enc = load_model("enc.h5")
networks = dict(ae_model=ae, enc_model=enc)
settings = dict(gamma=100, theta=100, max_iterations=1000, feature_range=(xmin, xmax), **networks)
cf = CounterFactualProto(cnn, shape, c_init=1.0, c_steps=2, **settings)
cf.fit(x_train)
SAW["proto"] = cf.explain(X)
predict_fn = lambda x: cnn.predict(x)
cf = CounterFactualProto(predict_fn, shape, c_init=1.0, c_steps=2, eps=(1e-2, 1e-2), **settings)
cf.fit(x_train[:300])
SAW["function"] = cf.explain(X, k=1)

# %% the part that holds the answer
segmentation_fn = "slic"
kwargs = {"n_segments": 15, "compactness": 20, "sigma": 0.5}
explainer = AnchorImage(
    predict_fn, x_train.shape[1:], segmentation_fn=segmentation_fn, segmentation_kwargs=kwargs,
    images_background=None,
)  # fmt: skip
SAW["anchor"] = explainer.explain(x_test[0], threshold=0.95, p_sample=0.5, tau=0.25)
