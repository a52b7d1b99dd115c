{{/* The metadata of an InferenceService. */}}
{{- define "er.kserveMeta" -}}
{{ include "er.meta" . }}
annotations:
  serving.kserve.io/deploymentMode: {{ .Values.kserve.deploymentMode }}
{{- end }}

{{/* Labels and annotations that KServe gives to the pods of a component, and how many there are. */}}
{{- define "er.component" -}}
labels: {{- merge (dict) (include "er.labels" . | fromYaml) .Values.labels | toYaml | nindent 2 }}
annotations: {{- include "er.annotations" . | nindent 2 }}
minReplicas: {{ .Values.autoscaling.minReplicas }}
maxReplicas: {{ .Values.autoscaling.maxReplicas }}
timeout: {{ .Values.timeout }}
{{- if include "er.jobsClaim" . }}
deploymentStrategy: {type: Recreate}
{{- end }}
{{- end }}

{{/* Ports of the container. KServe finds the gRPC one by its name, and makes routes for both; Knative takes one. */}}
{{- define "er.kservePorts" -}}
- {name: http, containerPort: 8080, protocol: TCP}
{{- if and .grpc (not (include "er.knative" .root)) }}
- {name: grpc, containerPort: 8081, protocol: TCP}
{{- end }}
{{- end }}

{{/* Whether KServe's Knative mode is on, as a word. */}}
{{- define "er.knative" -}}
{{- if eq .Values.kserve.deploymentMode "Knative" }}yes{{ end }}
{{- end }}
