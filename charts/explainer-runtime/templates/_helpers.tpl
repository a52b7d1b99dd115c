{{/* Name of what is made. */}}
{{- define "er.name" -}}
{{ .Values.name | default .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* Name under which the explainer is served. A sidecar shares a server with the model, which has the release's. */}}
{{- define "er.served" -}}
{{- if eq .Values.mode "kserve-sidecar" }}{{ include "er.name" . }}-explainer
{{- else if eq .Values.mode "seldon-v1" }}{{ include "er.name" . }}-default-explainer
{{- else }}{{ include "er.name" . }}{{ end }}
{{- end }}

{{- define "er.selector" -}}
app.kubernetes.io/name: explainer-runtime
app.kubernetes.io/instance: {{ include "er.name" . }}
{{- end }}

{{/* Every object has labels, so whatever is made first, what is wrong is said first. */}}
{{- define "er.labels" -}}
{{- $_ := include "er.checks" . -}}
{{ include "er.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "er.meta" -}}
name: {{ include "er.name" . }}
namespace: {{ .Release.Namespace }}
labels: {{- include "er.labels" . | nindent 2 }}
{{- end }}

{{- define "er.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* Where routes and `helm test` find the explainer, from within the cluster. */}}
{{- define "er.address" -}}
{{- $name := include "er.name" . -}}
{{- if eq .Values.mode "deployment" }}http://{{ $name }}:8080
{{- else if eq .Values.mode "kserve-explainer" }}http://{{ $name }}-explainer
{{- else if eq .Values.mode "seldon-v1" }}http://{{ $name }}-default-explainer:9000
{{- else if eq .Values.mode "seldon-v2" }}http://seldon-mesh
{{- else }}http://{{ $name }}-predictor{{ end }}
{{- end }}

{{/* Whether the pods can carry our labels: Seldon's operators make theirs. */}}
{{- define "er.ourPods" -}}
{{- if not (hasPrefix "seldon" .Values.mode) }}yes{{ end }}
{{- end }}

{{/* Seconds to stop in: still answering, finishing, and a little more. */}}
{{- define "er.grace" -}}
{{- $grace := 25.0 -}}
{{- if hasKey .Values.guard "grace" }}{{ $grace = .Values.guard.grace }}{{ end -}}
{{ add (ceil (.Values.guard.linger | default 0)) (ceil $grace) 5 }}
{{- end }}

{{/* Seconds that one explanation may take, by the server. */}}
{{- define "er.maxSeconds" -}}
{{ .Values.limits.max_seconds | default 30 }}
{{- end }}
