{{- define "selextract-cluster.name" -}}
{{- $name := .Values.name | default .Release.Name -}}
{{- if gt (len $name) 30 -}}
{{- fail (printf "The name %q has more than 30 characters: set the value name to a shorter one." $name) -}}
{{- end -}}
{{- $name -}}
{{- end }}

{{- define "selextract-cluster.testImage" -}}
{{- $image := .Values.spec.image | default dict -}}
{{- if .Values.test.image -}}
{{- .Values.test.image -}}
{{- else if $image.platform -}}
{{- $image.platform -}}
{{- else -}}
{{- printf "%s/platform:%s" ($image.registry | default "selextract") ($image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end }}

{{- define "selextract-cluster.labels" -}}
app.kubernetes.io/name: selextract
app.kubernetes.io/instance: {{ include "selextract-cluster.name" . }}
app.kubernetes.io/part-of: selextract
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}
