{{/* What does not go together, each refused with what to do about it. Nothing is made here. */}}
{{- define "er.checks" }}
{{- $v := .Values }}
{{- $mode := $v.mode }}
{{- $predictor := $v.predictor | default dict }}
{{- $uri := $v.artifact.uri }}
{{- if not $uri }}
{{- fail "artifact.uri: missing; say where the fitted explainer is, such as s3://bucket/fashion-cf" }}
{{- end }}
{{- if has $mode (list "deployment" "kserve-runtime") }}
{{- if not (and $predictor.url $predictor.model) }}
{{- fail (printf "predictor.url, predictor.model: mode %s needs both, the address and name of the served model" $mode) }}
{{- end }}
{{- else if omit $predictor "kind" }}
{{- fail (printf "predictor: mode %s takes the model's address from the platform; leave it out" $mode) }}
{{- end }}
{{- if and $predictor.kind (eq $mode "kserve-sidecar") }}
{{- fail "predictor.kind: a sidecar asks the model over V2" }}
{{- end }}
{{- if and (has $mode (list "kserve-explainer" "seldon-v1")) (not $v.model.uri) }}
{{- fail (printf "model.uri: mode %s declares the model too; say where it is stored" $mode) }}
{{- end }}
{{- if and (eq $mode "kserve-sidecar") (not (and $v.model.image $v.model.uri)) }}
{{- fail "model.image, model.uri: mode kserve-sidecar runs the model's server in the same pod; say both" }}
{{- end }}
{{- if and $v.model.image (not (regexMatch "(@sha256:[0-9a-f]{64}|:[A-Za-z0-9_][A-Za-z0-9_.-]*)$" $v.model.image)) }}
{{- fail (printf "model.image: expected a tag or a digest, got %s" $v.model.image) }}
{{- end }}
{{- range $name, $image := dict "model.image" $v.model.image "artifact.downloader" $v.artifact.downloader }}
{{- if hasSuffix ":latest" $image }}
{{- fail (printf "%s: expected a tag other than latest, or a digest" $name) }}
{{- end }}
{{- end }}
{{- if and (eq $mode "seldon-v1") (not (regexMatch "^(s3|gs|pvc)://" $uri)) }}
{{- fail "artifact.uri: Seldon Core 1 downloads s3://, gs:// and pvc:// only" }}
{{- end }}
{{- if and (eq $mode "seldon-v2") (not (regexMatch "^(s3|gs)://" $uri)) }}
{{- fail "artifact.uri: Seldon Core 2 downloads s3:// and gs:// only" }}
{{- end }}
{{- if not (include "er.ourPods" .) }}
{{- range $name := list "spread" "podDisruptionBudget" "serviceMonitor" "networkPolicy" }}
{{- if (index $v $name).enabled }}
{{- fail (printf "%s.enabled: in mode %s the pods are the operator's; use its own means" $name $mode) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (ne $v.autoscaling.kind "none") (ne $mode "deployment") }}
{{- fail (printf "autoscaling.kind: in mode %s the platform scales; KServe is given minReplicas and maxReplicas" $mode) }}
{{- end }}
{{- if gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas) }}
{{- fail "autoscaling.minReplicas: expected at most autoscaling.maxReplicas" }}
{{- end }}
{{- if and $v.httpRoute.enabled (ne $mode "deployment") }}
{{- fail (printf "httpRoute.enabled: in mode %s the platform makes the routes" $mode) }}
{{- end }}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.hostnames) }}
{{- fail "httpRoute.hostnames: expected at least one" }}
{{- end }}
{{- if and $v.networkPolicy.enabled (not $v.networkPolicy.predictor.port) (ne $mode "kserve-sidecar") }}
{{- fail "networkPolicy.predictor.port: missing; without the model nothing can be explained" }}
{{- end }}
{{- if and $v.networkPolicy.enabled (regexMatch "^(s3|gs)://" $uri) (not $v.networkPolicy.storage) }}
{{- fail "networkPolicy.storage: missing; the artifact is downloaded in the pod, say from which addresses" }}
{{- end }}
{{- if and $v.tokenSecret (hasPrefix "seldon" $mode) }}
{{- fail (printf "tokenSecret: in mode %s the operator calls the server without a token" $mode) }}
{{- end }}
{{- if and (eq $v.kserve.deploymentMode "Knative") (hasPrefix "kserve" $mode) (or $v.spread.enabled $v.podDisruptionBudget.enabled $v.networkPolicy.enabled) }}
{{- fail "spread.enabled, podDisruptionBudget.enabled, networkPolicy.enabled: Knative manages its pods, and calls them, by itself" }}
{{- end }}
{{- if lt (float64 $v.timeout) (float64 (include "er.maxSeconds" .)) }}
{{- fail (printf "timeout: %v is less than limits.max_seconds, %s; routes would give up first" $v.timeout (include "er.maxSeconds" .)) }}
{{- end }}
{{- end }}
