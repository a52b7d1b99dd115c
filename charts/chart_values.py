"""The chart's values: one model, from which `write_chart.py` writes values.yaml, its schema and its table.

A value is stated once, with its type, its default and a sentence. What the server itself is told - the limits
of a request, the door of the server, the settings of a predictor - is not stated here at all: those are the
package's own models, so the chart refuses what the server would refuse, before anything is installed. Their
names stay as the server writes them, with underscores.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from explainer_runtime.hosts.door.limits import Guard
from explainer_runtime.jobs import store
from explainer_runtime.predictors.settings import Endpoint
from explainer_runtime.spec import Limits, Value

Name = Annotated[str, Field(pattern=r"^([a-z]([-a-z0-9]{0,48}[a-z0-9])?)?$")]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi)?$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Labels = dict[str, Any]
"""Text by names. Numbers pass the schema, whose refusals say no more than "Invalid type";
templates/_checks.tpl refuses them with what to do about it."""


class Image(Value):
    """The image of the server."""

    repository: Annotated[str, Field(min_length=1, pattern=r"^[^@:]+(:[0-9]+/[^@:]+)?$")] = (
        "explainer-runtime"
    )
    """Where the image is, without tag or digest."""
    tag: Annotated[str, Field(pattern=r"^([\w][\w.-]{0,127})?$")] = ""
    """Tag; empty takes the version of the chart's application. `latest` is refused."""
    tensorflow: bool = False
    """Whether to take the image with TensorFlow, tag `<version>-tensorflow`; `explainer-runtime inspect
    --needs ARTIFACT` says which one an artifact needs. A `tag` or `digest` of your own goes before."""
    digest: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")] = ""
    """Digest, which goes before a tag: `sha256:` and 64 hexadecimal digits."""
    pullPolicy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When nodes pull it."""
    pullSecrets: list[str] = []
    """Names of Secrets to pull it with."""


class Artifact(Value):
    """Where the fitted explainer is."""

    uri: Annotated[str, Field(pattern=r"^$|^(oci|s3|gs|pvc|configmap)://[^/].*$|^/.+$")] = ""
    """`oci://image`, `s3://bucket/path`, `gs://bucket/path`, `pvc://claim/path`, `configmap://name`, or a
    path in the image, such as `/opt/explainers/fashion-cf`."""
    secret: str = ""
    """Name of a Secret whose entries are the downloader's variables, such as `AWS_ACCESS_KEY_ID`."""
    downloader: Annotated[str, Field(pattern=r"^[^\s]+[:@][\w.:-]+$")] = "kserve/storage-initializer:v0.20.0"
    """Image that downloads `s3://` and `gs://` before the server starts, where no platform does it."""


class Predictor(Endpoint):
    """The model being explained; every field is optional here, since a platform may say it."""

    kind: Literal["v2", "v1"] = "v2"
    """`v2`, the Open Inference Protocol, or `v1`, TensorFlow Serving's `:predict`."""

    url: Annotated[str, Field(pattern=r"^(https?|grpcs?)://[^/]+")]
    """`grpc://host:port` or `http://host:port`; `grpcs` and `https` use TLS. The controllers of KServe and
    Seldon say it themselves."""


class Resources(Value):
    """Processor time and memory of one container."""

    requests: dict[Literal["cpu", "memory", "ephemeral-storage"], Quantity | int] = {
        "cpu": "250m",
        "memory": "512Mi",
    }
    """What a pod is promised."""
    limits: dict[str, Quantity | int] = {"cpu": "2", "memory": "1536Mi"}
    """What it may use at most; memory has to be limited."""


MODEL = Resources(requests={"cpu": "500m", "memory": "1Gi"}, limits={"cpu": "2", "memory": "2Gi"})


class Canary(Value):
    """Another version of the model that gets a part of its traffic (kserve-explainer, Standard)."""

    uri: str = ""
    """Storage address of that version; empty makes none. Explanations are of the model, not of its canary."""
    name: Annotated[str, Field(min_length=1)] = "canary"
    """Its name: KServe calls the Service `<release>-<name>`."""
    trafficPercent: Annotated[int, Field(ge=0, le=100)] = 10
    """Percent of the model's requests that it gets."""


class Model(Value):
    """The model itself, in the modes that declare it together with its explainer."""

    name: Annotated[str, Field(min_length=1)] = "model"
    """Name under which a Seldon graph or model is deployed; elsewhere the model is called as the release."""
    uri: str = ""
    """Storage address of the model (kserve-explainer, kserve-sidecar, seldon-v1)."""
    format: str = "tensorflow"
    """KServe's name of the model's format (kserve-explainer)."""
    runtime: str = ""
    """KServe's serving runtime; empty lets KServe choose (kserve-explainer)."""
    implementation: str = "TRITON_SERVER"
    """Seldon's server for the model, one that speaks V2 (seldon-v1)."""
    image: str = ""
    """Image of the model's server, with a tag or digest (kserve-sidecar)."""
    args: list[str] = []
    """Arguments of the model's server (kserve-sidecar)."""
    port: Port = 8085
    """Port of the model's server (kserve-sidecar)."""
    grpcPort: Annotated[int, Field(ge=0, le=65535)] = 0
    """Its gRPC port; 0 relays no gRPC (kserve-sidecar)."""
    canary: Canary = Canary()
    """Another version of the model that gets a part of its traffic (kserve-explainer, Standard)."""
    resources: Resources = MODEL
    """Processor time and memory of the model's server."""


class Tls(Value):
    """Certificates of the server (mode deployment)."""

    secret: str = ""
    """Name of a Secret of type `kubernetes.io/tls`, read again when it is renewed. REST and gRPC then speak
    TLS."""
    clientCa: bool = False
    """Whether clients must show a certificate that the Secret's `ca.crt` has signed; health needs none."""


class Signature(Value):
    """By whom the artifact has to be signed."""

    secret: str = ""
    """Name of a Secret with an entry `signer.pem`: a public key, or certificates with a root. A server starts
    with no artifact that is not signed by it (not with Seldon)."""


class KServe(Value):
    """How KServe deploys."""

    deploymentMode: Literal["Standard", "Knative"] = "Standard"
    """`Standard` makes Deployments, `Knative` scales to zero; Knative knows no startup probe, no spread."""


class Seldon(Value):
    """What Seldon has to be told."""

    explainerType: Literal["AnchorImages", "Counterfactuals", "Contrastive"] = "AnchorImages"
    """Type of the artifact, in Seldon's words; one that differs from the artifact's is refused at start."""


class ServiceAccount(Value):
    """The identity of the pods."""

    create: bool = False
    """Whether to make it, without a mounted token."""
    name: Name = ""
    """Its name; empty takes the release's where it is made, else the namespace's default."""
    annotations: Labels = {}
    """Annotations, such as the role of a cloud that may read the artifact."""


class Probes(Value):
    """How the kubelet looks after the server."""

    startupSeconds: Annotated[int, Field(ge=10, le=3600)] = 120
    """Seconds that a start may take; TensorFlow alone takes ten on a busy node."""
    periodSeconds: Annotated[int, Field(ge=1, le=300)] = 10
    """Seconds between two looks."""


class Switch(Value):
    """Something optional."""

    enabled: bool = False
    """Whether to make it."""


class Audit(Value):
    """A record of each explanation, without rows."""

    enabled: bool = False
    """Whether each explanation is recorded, without rows, as a line of JSON on stdout."""


class Persistence(Value):
    """The volume of jobs (store volume)."""

    existingClaim: Name = ""
    """Name of a PersistentVolumeClaim that is there; empty makes one. SQLite needs a disk, not the
    file system of a network."""
    size: Quantity = "4Gi"
    """Size of the volume that is made; more than `limits.bytes` of the jobs, 2 GiB."""
    storageClass: str = ""
    """Class of the claim that is made; empty takes the cluster's default."""
    emptyDir: bool = False
    """Whether it is an emptyDir instead: jobs then end with the pod."""


class JobsLimits(store.Limits):
    """What jobs may use."""


class Jobs(Switch):
    """Explanations that outlive their connection (not with Seldon, not with Knative)."""

    store: Literal["volume", "postgresql"] = "volume"
    """Where they are kept: `volume`, for one replica, or `postgresql`, which replicas share."""
    persistence: Persistence = Persistence()
    """The volume (store volume)."""
    secret: str = ""
    """Name of a Secret with an entry `url`, `postgresql://user:password@host/database` (store postgresql)."""
    sink: Annotated[str, Field(pattern=r"^(https?://[^@]+)?$")] = ""
    """Where a CloudEvent is posted when a job has ended; empty tells nobody."""
    limits: JobsLimits | dict[Any, Any] = {}
    """How many, how large, how long; what is left out keeps the server's default."""


class Cache(Switch):
    """Answers that are kept, and given again to the same question, in an emptyDir (not with Seldon)."""

    size: Annotated[str, Field(pattern=r"^[1-9][0-9]*[MGT]$")] = "1G"
    """How large they may become together, in bytes by thousands; the volume has a fifth more."""


class Page(Switch):
    """The page that people look at (not with Seldon)."""

    samples: bool = False
    """Whether it offers reference rows that explainers keep, to try: everybody sees them who may ask."""
    url: Annotated[str, Field(pattern=r"^(https?://[^\"\\\s]+)?$")] = ""
    """Where people reach it, such as `https://explain.example.com/page/`; the dashboard links there."""


class Spread(Switch):
    """Replicas on different nodes and zones."""

    topologyKeys: list[str] = ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    """Labels of nodes over whose values replicas are spread."""


class DisruptionBudget(Switch):
    """A PodDisruptionBudget."""

    maxUnavailable: Annotated[int, Field(ge=1)] = 1
    """Pods that may be away at a time."""


class Autoscaling(Value):
    """Replicas that follow the explanations that run, wait, or are refused for want of room."""

    kind: Literal["none", "hpa", "keda"] = "none"
    """`hpa` reads `explainer_demand` through a metrics adapter, `keda` asks Prometheus."""
    minReplicas: Annotated[int, Field(ge=0)] = 1
    """Least replicas; 0 only with `keda` and jobs in PostgreSQL, whose table says when one is wanted."""
    maxReplicas: Annotated[int, Field(ge=1)] = 1
    """Most replicas."""
    utilization: Annotated[int, Field(ge=10, le=90)] = 75
    """Percent of `threads` that replicas are kept busy with; beyond it there are more. Less than 100, since
    a pod that is just full has to count as too busy."""
    prometheus: Annotated[str, Field(pattern=r"^https?://.+")] = "http://prometheus-operated.monitoring:9090"
    """Address of Prometheus (keda)."""


class ServiceMonitor(Switch):
    """A ServiceMonitor for the Prometheus operator."""

    interval: Annotated[str, Field(pattern=r"^[0-9]+[sm]$")] = "30s"
    """How often metrics are read."""
    labels: Labels = {}
    """Labels by which your Prometheus selects monitors."""


class Rules(Switch):
    """Alerts, as a PrometheusRule."""

    labels: Labels = {}
    """Labels by which your Prometheus selects rules."""


class Dashboard(Switch):
    """A Grafana dashboard in a ConfigMap."""

    labels: Labels = {"grafana_dashboard": "1"}
    """Labels by which Grafana's sidecar finds it."""


class HttpRoute(Switch):
    """An HTTPRoute of the Gateway API (mode deployment)."""

    gateway: str = "gateway"
    """Name of the Gateway."""
    gatewayNamespace: str = ""
    """Its namespace; empty is the release's."""
    hostnames: list[str] = []
    """Hosts to answer to."""


class Peers(Value):
    """Pods, by their labels, or addresses."""

    labels: Labels = {}
    """Labels of the pods."""
    namespace: str = ""
    """Their namespace; empty is the release's."""
    cidr: Annotated[str, Field(pattern=r"^([0-9a-f.:]+/[0-9]+)?$")] = ""
    """An address range instead of pods, for what is outside of the cluster; needs a port."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port that the pods listen at, which may be another than their Service's; 0 is every port of the pods
    with these labels, and without labels no rule."""


class NetworkPolicy(Switch):
    """A NetworkPolicy: nothing is allowed but what is named here, and DNS."""

    from_: Annotated[list[Peers], Field(alias="from")] = []
    """Who may ask for explanations and read metrics; empty is everyone in the namespace."""
    predictor: Peers = Peers()
    """The model's pods; labels or port are required, since explanations need it."""
    otlp: Peers = Peers()
    """The collector of traces."""
    database: Peers = Peers()
    """PostgreSQL, where jobs are kept in it; labels, port or addresses are then required."""
    sink: Peers = Peers()
    """Where `jobs.sink` is; labels, port or addresses are then required."""
    storage: list[Annotated[str, Field(pattern=r"^[0-9a-f.:]+/[0-9]+$")]] = []
    """Address ranges that the downloader may reach at port 443."""


class HelmTest(Value):
    """What `helm test` does: it explains one row."""

    shape: list[Annotated[int, Field(ge=1)]] = []
    """Shape of that row; empty asks the server for it (Seldon Core 2 cannot say)."""
    value: float = 0.5
    """Value of each of its features."""


class Values(Value):
    """All values, in the order in which people need them."""

    mode: Literal[
        "deployment", "kserve-explainer", "kserve-sidecar", "kserve-runtime", "seldon-v1", "seldon-v2"
    ] = "deployment"
    """How the explainer meets the model; see the table above."""
    name: Name = ""
    """Name of what is made, and of the explainer; empty takes the release's."""
    artifact: Artifact = Artifact()
    """Where the fitted explainer is."""
    predictor: Predictor | dict[Any, Any] = {}
    """The model being explained, where it is already served (deployment, kserve-runtime). In kserve-explainer
    and kserve-sidecar everything but its address, which the platform says."""
    model: Model = Model()
    """The model itself, where it is declared together with its explainer."""
    image: Image = Image()
    """The image of the server."""
    threads: Annotated[int, Field(ge=1, le=64)] = 2
    """Explanations that one pod computes at the same time; more wait."""
    limits: Limits | dict[Any, Any] = {}
    """What one request may use; what is left out keeps the server's default."""
    guard: Guard | dict[Any, Any] = {"linger": 5}
    """The door of the server; what is left out keeps the server's default."""
    tls: Tls = Tls()
    """Certificates of the server (mode deployment)."""
    tokenSecret: str = ""
    """Name of a Secret with an entry `token`: bearer tokens, one a line, of which a request needs one."""
    signature: Signature = Signature()
    """By whom the artifact has to be signed."""
    audit: Audit = Audit()
    """A record of each explanation, without rows."""
    jobs: Jobs = Jobs()
    """Explanations that outlive their connection (not with Seldon, not with Knative)."""
    cache: Cache = Cache()
    """Answers that are kept, and given again to the same question (not with Seldon)."""
    page: Page = Page()
    """The page that people look at, at `/page/`: a picture in, explanations out (not with Seldon)."""
    timeout: Annotated[int, Field(ge=1, le=3600)] = 60
    """Seconds that routes wait for an explanation; not less than what `limits.max_seconds` allows."""
    resources: Resources = Resources()
    """Processor time and memory of the server."""
    replicas: Annotated[int, Field(ge=0)] = 1
    """Pods, where nothing scales them."""
    labels: Labels = {}
    """More labels of the pods."""
    annotations: Labels = {}
    """Annotations of the pods."""
    env: Labels = {}
    """More variables of the server, such as `OTEL_EXPORTER_OTLP_ENDPOINT`."""
    nodeSelector: Labels = {}
    """Labels of the nodes to run on."""
    kserve: KServe = KServe()
    """How KServe deploys."""
    seldon: Seldon = Seldon()
    """What Seldon has to be told."""
    serviceAccount: ServiceAccount = ServiceAccount()
    """The identity of the pods."""
    probes: Probes = Probes()
    """How the kubelet looks after the server."""
    spread: Spread = Spread()
    """Replicas on different nodes and zones."""
    podDisruptionBudget: DisruptionBudget = DisruptionBudget()
    """A PodDisruptionBudget."""
    autoscaling: Autoscaling = Autoscaling()
    """Replicas that follow the load; under KServe only the least and most replicas are used."""
    serviceMonitor: ServiceMonitor = ServiceMonitor()
    """A ServiceMonitor for the Prometheus operator."""
    prometheusRule: Rules = Rules()
    """Alerts, as a PrometheusRule."""
    dashboard: Dashboard = Dashboard()
    """A Grafana dashboard in a ConfigMap."""
    httpRoute: HttpRoute = HttpRoute()
    """An HTTPRoute of the Gateway API (deployment)."""
    networkPolicy: NetworkPolicy = NetworkPolicy()
    """A NetworkPolicy."""
    test: HelmTest = HelmTest()
    """What `helm test` does."""
