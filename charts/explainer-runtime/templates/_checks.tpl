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
{{- else if or $predictor.url $predictor.model }}
{{- fail (printf "predictor.url, predictor.model: mode %s takes the model's address from the platform; leave both out" $mode) }}
{{- else if and (hasPrefix "seldon" $mode) $predictor }}
{{- fail (printf "predictor: in mode %s the operator says everything about the model; write what else there is into predictor in the artifact's model-settings.json" $mode) }}
{{- end }}
{{- if and $predictor.kind (eq $mode "kserve-sidecar") }}
{{- fail "predictor.kind: a sidecar asks the model over V2" }}
{{- end }}
{{- if and $v.model.canary.uri (or (ne $mode "kserve-explainer") (ne $v.kserve.deploymentMode "Standard")) }}
{{- fail "model.canary.uri: KServe splits traffic so in mode kserve-explainer with deploymentMode Standard only" }}
{{- end }}
{{- if and $v.tls.secret (ne $mode "deployment") }}
{{- fail (printf "tls.secret: in mode %s the platform calls the server without TLS; let its ingress, or a mesh, encrypt" $mode) }}
{{- end }}
{{- if and $v.tls.clientCa (not $v.tls.secret) }}
{{- fail "tls.clientCa: needs tls.secret, whose ca.crt it is" }}
{{- end }}
{{- if and $v.tls.secret $v.httpRoute.enabled }}
{{- fail "httpRoute.enabled: a Gateway calls a Service without TLS; leave out tls.secret, or make your own BackendTLSPolicy and HTTPRoute" }}
{{- end }}
{{- range $name := list "env" "labels" "annotations" "nodeSelector" }}
{{- range $key, $value := index $v $name }}
{{- if not (kindIs "string" $value) }}
{{- fail (printf "%s.%s: expected text, got %v; put it in quotes, or use --set-string %s.%s=%v" $name $key $value $name (replace "." "\\." $key) $value) }}
{{- end }}
{{- end }}
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
{{- $peer := $v.networkPolicy.predictor }}
{{- if and $v.networkPolicy.enabled (ne $mode "kserve-sidecar") (not $peer.labels) (not $peer.port) }}
{{- fail "networkPolicy.predictor.labels: missing; say which pods the model's are: without the model nothing can be explained" }}
{{- end }}
{{- if and $v.networkPolicy.enabled (has (int $peer.port) (list 80 443)) }}
{{- fail (printf "networkPolicy.predictor.port: %v looks like the port of a Service; a policy needs the one that the pods listen at (8080 for KServe's), or 0 for all ports of the pods with networkPolicy.predictor.labels" $peer.port) }}
{{- end }}
{{- if and $v.networkPolicy.enabled (regexMatch "^(s3|gs)://" $uri) (not $v.networkPolicy.storage) }}
{{- fail "networkPolicy.storage: missing; the artifact is downloaded in the pod, say from which addresses" }}
{{- end }}
{{- if and $v.tokenSecret (hasPrefix "seldon" $mode) }}
{{- fail (printf "tokenSecret: in mode %s the operator calls the server without a token" $mode) }}
{{- end }}
{{- if and $v.signature.secret (hasPrefix "seldon" $mode) }}
{{- fail (printf "signature.secret: in mode %s nothing can be mounted beside what the operator mounts" $mode) }}
{{- end }}
{{- if and $v.cache.enabled (hasPrefix "seldon" $mode) }}
{{- fail (printf "cache.enabled: in mode %s nothing can be mounted beside what the operator mounts" $mode) }}
{{- end }}
{{- if and $v.page.enabled (hasPrefix "seldon" $mode) }}
{{- fail (printf "page.enabled: in mode %s the operator's routes reach no page" $mode) }}
{{- end }}
{{- $gateways := $v.httpRoute.gatewayNamespace | default .Release.Namespace }}
{{- if and $v.httpRoute.enabled $v.networkPolicy.enabled (not $v.networkPolicy.from) (ne $gateways .Release.Namespace) }}
{{- fail (printf "networkPolicy.from: missing; name the pods of the Gateway in namespace %s, else its routes reach nobody" $gateways) }}
{{- end }}
{{- $jobs := $v.jobs }}
{{- if $jobs.enabled }}
{{- if hasPrefix "seldon" $mode }}
{{- fail (printf "jobs.enabled: in mode %s the operator's routes reach no job" $mode) }}
{{- end }}
{{- if and (hasPrefix "kserve" $mode) (eq $v.kserve.deploymentMode "Knative") }}
{{- fail "jobs.enabled: Knative ends a pod that answers no request, whatever jobs it does; take kserve.deploymentMode Standard" }}
{{- end }}
{{- if and (eq $jobs.store "postgresql") (not $jobs.secret) }}
{{- fail "jobs.secret: missing; name a Secret with an entry url, postgresql://user:password@host/database" }}
{{- end }}
{{- if and (eq $jobs.store "volume") $jobs.secret }}
{{- fail "jobs.secret: is for jobs.store postgresql; leave it out, or set that" }}
{{- end }}
{{- if and (eq $jobs.store "volume") (or (and (eq $mode "deployment") (eq $v.autoscaling.kind "none") (gt (int $v.replicas) 1)) (gt (int $v.autoscaling.maxReplicas) 1)) }}
{{- fail "jobs.store: a volume is one replica's, and another would not find its jobs; set jobs.store postgresql, or one replica" }}
{{- end }}
{{- if and $jobs.persistence.existingClaim $jobs.persistence.emptyDir }}
{{- fail "jobs.persistence: expected existingClaim or emptyDir, got both" }}
{{- end }}
{{- end }}
{{- if and (eq (int $v.autoscaling.minReplicas) 0) (not (and (eq $v.autoscaling.kind "keda") $jobs.enabled (eq $jobs.store "postgresql"))) }}
{{- fail "autoscaling.minReplicas: 0 needs autoscaling.kind keda and jobs in PostgreSQL, whose table says when a pod is wanted again" }}
{{- end }}
{{- if $v.networkPolicy.enabled }}
{{- range $name, $for := dict "database" (and $jobs.enabled (eq $jobs.store "postgresql")) "sink" (and $jobs.enabled $jobs.sink) }}
{{- $asked := index $v.networkPolicy $name }}
{{- if and $for (not $asked.labels) (not $asked.port) }}
{{- fail (printf "networkPolicy.%s: missing; say where jobs reach it, by labels, or by cidr and port" $name) }}
{{- end }}
{{- end }}
{{- range $asked := concat (pick $v.networkPolicy "predictor" "otlp" "database" "sink" | values) $v.networkPolicy.from }}
{{- if and $asked.cidr (not $asked.port) }}
{{- fail (printf "networkPolicy: %s needs a port beside it" $asked.cidr) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (eq $v.kserve.deploymentMode "Knative") (hasPrefix "kserve" $mode) (or $v.spread.enabled $v.podDisruptionBudget.enabled $v.networkPolicy.enabled) }}
{{- fail "spread.enabled, podDisruptionBudget.enabled, networkPolicy.enabled: Knative manages its pods, and calls them, by itself" }}
{{- end }}
{{- if lt (float64 $v.timeout) (float64 (include "er.maxSeconds" .)) }}
{{- fail (printf "timeout: %v is less than limits.max_seconds, %s; routes would give up first" $v.timeout (include "er.maxSeconds" .)) }}
{{- end }}
{{- end }}
