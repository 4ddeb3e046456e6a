{{/* The release's name, with the chart's unless it holds it already. */}}
{{- define "selextract-operator.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "selextract-operator.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "selextract-operator.fullname" .) -}}
{{- end }}

{{- define "selextract-operator.tag" -}}
{{- .Values.image.tag | default .Chart.AppVersion -}}
{{- end }}

{{- define "selextract-operator.image" -}}
{{- printf "%s/platform:%s" .Values.image.registry (include "selextract-operator.tag" .) -}}
{{- end }}

{{- define "selextract-operator.selector" -}}
app.kubernetes.io/name: selextract-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: {{ .component | default "operator" }}
{{- end }}

{{- define "selextract-operator.labels" -}}
{{ include "selextract-operator.selector" . }}
app.kubernetes.io/part-of: selextract
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* What every container of ours but the seccomp installer runs with. */}}
{{- define "selextract-operator.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "selextract-operator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* The namespaces that are watched by name, as a JSON list. */}}
{{- define "selextract-operator.namespaces" -}}
{{- .Values.watchNamespaces | default (list .Release.Namespace) | toJson -}}
{{- end }}

{{/* What the operator may do where it watches: docs/rbac.md, its second table. */}}
{{- define "selextract-operator.watchRules" -}}
- apiGroups: [selextract.io]
  resources: [selextractclusters, scrapetasks]
  verbs: [get, list, watch]
- apiGroups: [selextract.io]
  resources: [selextractclusters/status, scrapetasks/status]
  verbs: [patch]
- apiGroups: [selextract.io]
  resources: [selextractclusters/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [serviceaccounts, configmaps, services, persistentvolumeclaims]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies, ingresses]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors, prometheusrules]
  verbs: [get, list, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
