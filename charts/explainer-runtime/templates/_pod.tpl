{{/* The parts of a pod that runs the server; every mode puts them together in its own way. */}}

{{- define "er.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "er.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: {{ ne .Values.mode "seldon-v1" }}
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Options of `explainer-runtime serve` that every mode has. Arguments, since Seldon overwrites variables. */}}
{{- define "er.options" -}}
- --threads={{ .Values.threads }}
{{- with .Values.limits }}
- {{ printf "--limits=%s" (toJson .) | quote }}
{{- end }}
{{- $guard := deepCopy .Values.guard }}
{{- if not (hasKey $guard "grace") }}{{ $_ := set $guard "grace" (include "er.guardGrace" . | int) }}{{ end }}
{{- if .Values.tokenSecret }}{{ $_ := set $guard "token_file" "/var/run/explainer/token" }}{{ end }}
{{- if eq .Values.mode "seldon-v2" }}{{ $_ := set $guard "management" true }}{{ end }}
- {{ printf "--guard=%s" (toJson $guard) | quote }}
{{- if .Values.signature.secret }}
- --require-signature=/var/run/signer/signer.pem
{{- end }}
{{- if .Values.audit.enabled }}
- --audit=-
{{- end }}
{{- if .Values.cache.enabled }}
- --cache=/var/cache/explanations:{{ .Values.cache.size }}
{{- end }}
{{- if .Values.page.enabled }}
- --page
{{- if .Values.page.samples }}
- --page-samples
{{- end }}
{{- end }}
{{- if .Values.jobs.enabled }}
{{- if include "er.jobsVolume" . }}
- --jobs=/var/lib/jobs
{{- end }}
{{- with .Values.jobs.sink }}
- {{ printf "--jobs-sink=%s" . | quote }}
{{- end }}
{{- with .Values.jobs.limits }}
- {{ printf "--jobs-limits=%s" (toJson .) | quote }}
{{- end }}
{{- end }}
{{- if .Values.tls.secret }}
- --tls-cert=/var/run/tls/tls.crt
- --tls-key=/var/run/tls/tls.key
{{- if .Values.tls.clientCa }}
- --tls-client-ca=/var/run/tls/ca.crt
{{- end }}
{{- end }}
{{- end }}

{{- define "er.env" -}}
{{- range $name, $value := .Values.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- if and .Values.jobs.enabled (not (include "er.jobsVolume" .)) }}
- name: EXPLAINER_RUNTIME_JOBS
  valueFrom:
    secretKeyRef: {name: {{ .Values.jobs.secret }}, key: url}
{{- end }}
{{- end }}

{{/* Whether jobs are kept on a volume of the pod. */}}
{{- define "er.jobsVolume" -}}
{{- if and .Values.jobs.enabled (eq .Values.jobs.store "volume") }}yes{{ end }}
{{- end }}

{{/* Name of the claim that jobs are kept in; empty where there is none. */}}
{{- define "er.jobsClaim" -}}
{{- if and (include "er.jobsVolume" .) (not .Values.jobs.persistence.emptyDir) }}
{{- .Values.jobs.persistence.existingClaim | default (printf "%s-jobs" (include "er.name" .)) }}
{{- end }}
{{- end }}

{{/* The variables that describe one explainer and its model, where no platform does. */}}
{{- define "er.modelEnv" -}}
- name: MLSERVER_MODEL_NAME
  value: {{ include "er.served" . | quote }}
- name: MLSERVER_MODEL_URI
  value: {{ include "er.path" . | quote }}
- name: MLSERVER_MODEL_EXTRA
  value: {{ dict "predictor" (merge (dict) .Values.predictor (dict "kind" "v2")) | toJson | quote }}
{{- end }}

{{/* Where the artifact is in the container. KServe's own place is its initialiser's. */}}
{{- define "er.path" -}}
{{- if hasPrefix "/" .Values.artifact.uri }}{{ .Values.artifact.uri }}
{{- else if include "er.mounted" . }}/mnt/explainer
{{- else }}/mnt/models{{ end }}
{{- end }}

{{/* Whether the chart mounts the artifact itself, rather than a platform. */}}
{{- define "er.mounted" -}}
{{- $uri := .Values.artifact.uri -}}
{{- if hasPrefix "configmap://" $uri }}yes
{{- else if and $uri (not (hasPrefix "/" $uri)) (has .Values.mode (list "deployment" "kserve-sidecar")) }}yes{{ end }}
{{- end }}

{{- define "er.downloaded" -}}
{{- if and (include "er.mounted" .) (regexMatch "^(s3|gs)://" .Values.artifact.uri) }}yes{{ end }}
{{- end }}

{{/* The rest of an address, in two: what is before the first slash, and what is after it. */}}
{{- define "er.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- if .Values.tokenSecret }}
- name: token
  secret: {secretName: {{ .Values.tokenSecret }}, defaultMode: 288}
{{- end }}
{{- if .Values.tls.secret }}
- name: tls
  secret: {secretName: {{ .Values.tls.secret }}, defaultMode: 288}
{{- end }}
{{- if .Values.signature.secret }}
- name: signer
  secret: {secretName: {{ .Values.signature.secret }}, defaultMode: 288}
{{- end }}
{{- if .Values.cache.enabled }}
- name: cache
  emptyDir: {sizeLimit: {{ include "er.cacheVolume" . }}}
{{- end }}
{{- if include "er.jobsVolume" . }}
- name: jobs
{{- with include "er.jobsClaim" . }}
  persistentVolumeClaim: {claimName: {{ . }}}
{{- else }}
  emptyDir: {sizeLimit: {{ .Values.jobs.persistence.size }}}
{{- end }}
{{- end }}
{{- if include "er.mounted" . }}
{{- $uri := .Values.artifact.uri }}
{{- $rest := regexReplaceAll "^[a-z0-9]+://" $uri "" }}
- name: artifact
{{- if hasPrefix "configmap://" $uri }}
  configMap: {name: {{ $rest }}}
{{- else if hasPrefix "pvc://" $uri }}
  persistentVolumeClaim: {claimName: {{ splitList "/" $rest | first }}, readOnly: true}
{{- else if hasPrefix "oci://" $uri }}
  image: {reference: {{ $rest | quote }}, pullPolicy: {{ .Values.image.pullPolicy }}}
{{- else }}
  emptyDir: {sizeLimit: 1Gi}
{{- end }}
{{- end }}
{{- end }}

{{/* A pod that outgrows an emptyDir is ended. What is kept is looked through after every twentieth part of its size
that was written, so there is a fifth more: 1G is 1200M. */}}
{{- define "er.cacheVolume" -}}
{{- $size := .Values.cache.size }}
{{- mul (regexFind "^[0-9]+" $size | int64) 1200 }}{{ get (dict "M" "k" "G" "M" "T" "G") (trimAll "0123456789" $size) }}
{{- end }}

{{- define "er.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if .Values.tokenSecret }}
- {name: token, mountPath: /var/run/explainer, readOnly: true}
{{- end }}
{{- if .Values.tls.secret }}
- {name: tls, mountPath: /var/run/tls, readOnly: true}
{{- end }}
{{- if .Values.signature.secret }}
- {name: signer, mountPath: /var/run/signer, readOnly: true}
{{- end }}
{{- if .Values.cache.enabled }}
- {name: cache, mountPath: /var/cache/explanations}
{{- end }}
{{- if include "er.jobsVolume" . }}
- {name: jobs, mountPath: /var/lib/jobs}
{{- end }}
{{- if include "er.mounted" . }}
- name: artifact
  mountPath: /mnt/explainer
  readOnly: true
  {{- if hasPrefix "pvc://" .Values.artifact.uri }}
  {{- with regexReplaceAll "^pvc://[^/]+/?" .Values.artifact.uri "" }}
  subPath: {{ . | quote }}
  {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "er.initContainers" -}}
{{- if include "er.downloaded" . }}
initContainers:
  - name: download
    image: {{ .Values.artifact.downloader }}
    args: [{{ .Values.artifact.uri | quote }}, /mnt/explainer]
    {{- with .Values.artifact.secret }}
    envFrom:
      - secretRef: {name: {{ . }}}
    {{- end }}
    env:
      - {name: HOME, value: /tmp}
    resources:
      requests: {cpu: 100m, memory: 128Mi}
      limits: {cpu: "1", memory: 1Gi}
    terminationMessagePolicy: FallbackToLogsOnError
    securityContext: {{- include "er.containerSecurity" . | nindent 6 }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      - {name: artifact, mountPath: /mnt/explainer}
{{- end }}
{{- end }}

{{/* Call with the root, the port, and the paths of live and ready. Ready never asks the model. */}}
{{- define "er.probes" -}}
{{- $probes := .root.Values.probes }}
{{- $tls := "" }}
{{- if .root.Values.tls.secret }}{{ $tls = ", scheme: HTTPS" }}{{ end }}
{{- if not .knative }}
startupProbe:
  httpGet: {path: {{ .live }}, port: {{ .port }}{{ $tls }}}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: {{ div $probes.startupSeconds 2 }}
{{- end }}
livenessProbe:
  httpGet: {path: {{ .live }}, port: {{ .port }}{{ $tls }}}
  periodSeconds: {{ $probes.periodSeconds }}
  timeoutSeconds: 5
  failureThreshold: 6
  {{- if .knative }}
  initialDelaySeconds: {{ $probes.startupSeconds }}
  {{- end }}
readinessProbe:
  httpGet: {path: {{ .ready }}, port: {{ .port }}{{ $tls }}}
  periodSeconds: {{ $probes.periodSeconds }}
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}

{{/* What is common to the containers of all modes; call with the root. */}}
{{- define "er.container" -}}
image: {{ include "er.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
resources: {{- toYaml .Values.resources | nindent 2 }}
securityContext: {{- include "er.containerSecurity" . | nindent 2 }}
# Why a start failed is the last line of the log, and then of the pod's status.
terminationMessagePolicy: FallbackToLogsOnError
{{- end }}

{{/* Annotations of a pod. What is in its emptyDirs can be made anew, or was put there by an operator who says that jobs
may end with the pod; so the cluster autoscaler may take it away. */}}
{{- define "er.annotations" -}}
{{- $local := list "tmp" }}
{{- if include "er.downloaded" . }}{{ $local = append $local "artifact" }}{{ end }}
{{- if .Values.cache.enabled }}{{ $local = append $local "cache" }}{{ end }}
{{- if and (include "er.jobsVolume" .) .Values.jobs.persistence.emptyDir }}{{ $local = append $local "jobs" }}{{ end }}
{{- merge (dict) .Values.annotations (dict "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes" (join "," $local)) | toYaml }}
{{- end }}

{{/* What is common to the pods that carry our labels. */}}
{{- define "er.pod" -}}
{{- $knative := and (hasPrefix "kserve" .Values.mode) (eq .Values.kserve.deploymentMode "Knative") }}
automountServiceAccountToken: false
# A Service called `mlserver-http` would otherwise set MLSERVER_HTTP_PORT.
enableServiceLinks: false
{{- if or .Values.serviceAccount.create .Values.serviceAccount.name }}
serviceAccountName: {{ .Values.serviceAccount.name | default (include "er.name" .) }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - {name: {{ . }}}
  {{- end }}
{{- end }}
securityContext: {{- include "er.podSecurity" . | nindent 2 }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if not $knative }}
terminationGracePeriodSeconds: {{ include "er.grace" . }}
{{- if .Values.spread.enabled }}
topologySpreadConstraints:
  {{- range .Values.spread.topologyKeys }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "er.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}
