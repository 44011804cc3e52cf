{{/* Names, labels and addresses. */}}

{{- define "recmesh.fullname" -}}
{{- $name := .Values.fullnameOverride | default .Release.Name -}}
{{- if gt (len $name) 20 -}}
{{- fail (printf "release name %q is longer than 20 characters, and the longest scenario's objects would exceed what Kubernetes allows; set fullnameOverride to a shorter name" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* Name of a component's objects. dict root, component, scenario? */}}
{{- define "recmesh.name" -}}
{{- $name := printf "%s-%s" (include "recmesh.fullname" .root) .component -}}
{{- if .scenario -}}{{- $name = printf "%s-%s" $name .scenario -}}{{- end -}}
{{- $name -}}
{{- end -}}

{{/* Labels that never change: what selectors use. dict root, component, scenario? */}}
{{- define "recmesh.selector" -}}
app.kubernetes.io/name: recmesh
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- if .scenario }}
recmesh.io/scenario: {{ .scenario }}
{{- end }}
{{- end -}}

{{/* All labels of an object. dict root, component, scenario? */}}
{{- define "recmesh.labels" -}}
{{ include "recmesh.selector" . }}
app.kubernetes.io/part-of: recmesh
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The identity in a component's certificate, and the host that others call. dict root, component, scenario? */}}
{{- define "recmesh.host" -}}
{{ include "recmesh.name" . }}.{{ .root.Release.Namespace }}.svc
{{- end -}}

{{/* The gRPC target of a service: every address of its headless Service, balanced by the client. */}}
{{- define "recmesh.address" -}}
dns:///{{ include "recmesh.host" . }}:50051
{{- end -}}

{{- define "recmesh.image" -}}
{{- $image := .image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}
