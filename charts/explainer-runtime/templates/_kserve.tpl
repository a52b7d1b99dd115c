{{/* The metadata of an InferenceService. */}}
{{- define "er.kserveMeta" -}}
{{ include "er.meta" . }}
annotations:
  serving.kserve.io/deploymentMode: {{ .Values.kserve.deploymentMode }}
{{- end }}

{{/* Labels and annotations that KServe gives to the pods of a component, and how many there are. */}}
{{- define "er.component" -}}
labels: {{- merge (dict) (include "er.labels" . | fromYaml) .Values.labels | toYaml | nindent 2 }}
{{- with .Values.annotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
minReplicas: {{ .Values.autoscaling.minReplicas }}
maxReplicas: {{ .Values.autoscaling.maxReplicas }}
timeout: {{ .Values.timeout }}
{{- end }}

{{/* Whether KServe's Knative mode is on, as a word. */}}
{{- define "er.knative" -}}
{{- if eq .Values.kserve.deploymentMode "Knative" }}yes{{ end }}
{{- end }}
