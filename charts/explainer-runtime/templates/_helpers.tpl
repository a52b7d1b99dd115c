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
{{- else if .Values.image.tag }}{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- else }}{{ .Values.image.repository }}:{{ .Chart.AppVersion }}{{ if .Values.image.tensorflow }}-tensorflow{{ end }}{{ end }}
{{- end }}

{{/* Where routes and `helm test` find the explainer, from within the cluster. */}}
{{- define "er.address" -}}
{{- $name := include "er.name" . -}}
{{- if eq .Values.mode "deployment" }}{{ include "er.scheme" . | lower }}://{{ $name }}:8080
{{- else if eq .Values.mode "kserve-explainer" }}http://{{ $name }}-explainer
{{- else if eq .Values.mode "seldon-v1" }}http://{{ $name }}-default-explainer:9000
{{- else if eq .Values.mode "seldon-v2" }}http://seldon-mesh
{{- else }}http://{{ $name }}-predictor{{ end }}
{{- end }}

{{- define "er.scheme" -}}
{{ if .Values.tls.secret }}HTTPS{{ else }}HTTP{{ end }}
{{- end }}

{{/* Whether the pods can carry our labels: Seldon's operators make theirs. */}}
{{- define "er.ourPods" -}}
{{- if not (hasPrefix "seldon" .Values.mode) }}yes{{ end }}
{{- end }}

{{/* Seconds that accepted requests have to finish in: what one of them may take, and a little for the answer.
Seldon Core 1 gives a pod 20 seconds in all, of which the last two are for closing. */}}
{{- define "er.guardGrace" -}}
{{- $linger := .Values.guard.linger | default 0 -}}
{{- if hasKey .Values.guard "grace" }}{{ .Values.guard.grace }}
{{- else if eq .Values.mode "seldon-v1" }}{{ max 1 (sub 18 (ceil $linger | int)) }}
{{- else }}{{ add (ceil (include "er.maxSeconds" . | float64) | int) 5 }}{{ end }}
{{- end }}

{{/* Seconds to stop in: still answering, finishing, and a little more. */}}
{{- define "er.grace" -}}
{{ add (ceil (.Values.guard.linger | default 0)) (ceil (include "er.guardGrace" . | float64)) 5 }}
{{- end }}

{{/* Seconds that one explanation may take, by the server. */}}
{{- define "er.maxSeconds" -}}
{{ .Values.limits.max_seconds | default 30 }}
{{- end }}
