{{/* Objects that every component has: account, service, budget, autoscaler. dict root, component, scenario?, settings */}}

{{- define "recmesh.metadata" -}}
name: {{ include "recmesh.name" . }}
namespace: {{ .root.Release.Namespace }}
labels: {{- include "recmesh.labels" . | nindent 2 }}
{{- end -}}

{{- define "recmesh.serviceAccount" -}}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "recmesh.metadata" . | nindent 2 }}
  {{- with .settings.serviceAccountAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}

{{/* Headless, so that clients see every pod and balance by themselves; behind a mesh the mesh does. ports? */}}
{{- define "recmesh.service" -}}
---
apiVersion: v1
kind: Service
metadata:
  {{- include "recmesh.metadata" . | nindent 2 }}
spec:
  {{- if eq .root.Values.mesh.kind "none" }}
  clusterIP: None
  {{- end }}
  selector: {{- include "recmesh.selector" . | nindent 4 }}
  ports:
    {{- range default (list (dict "name" "grpc" "port" 50051) (dict "name" "metrics" "port" 9090)) .ports }}
    - name: {{ .name }}
      port: {{ .port }}
      targetPort: {{ .name }}
      appProtocol: {{ ternary "grpc" "http" (eq .name "grpc") }}
    {{- end }}
{{- end }}

{{- define "recmesh.budget" -}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "recmesh.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ .settings.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "recmesh.selector" . | nindent 6 }}
{{- end }}

{{- define "recmesh.cpuAutoscaler" -}}
{{- with .settings.autoscaling }}
{{- if .enabled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "recmesh.metadata" $ | nindent 2 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ include "recmesh.name" $ }}}
  minReplicas: {{ .minReplicas }}
  maxReplicas: {{ .maxReplicas }}
  metrics:
    - type: Resource
      resource: {name: cpu, target: {type: Utilization, averageUtilization: {{ .cpuPercent }}}}
  behavior:
    scaleDown: {stabilizationWindowSeconds: 300}
{{- end }}
{{- end }}
{{- end }}

{{/* How a process listens, reports, stops, and whom it lets in. dict root, callers: list of identities */}}
{{- define "recmesh.server" -}}
host: 0.0.0.0
port: 50051
metrics_port: 9090
reflection: {{ .root.Values.reflection }}
max_connection_age_s: {{ .root.Values.maxConnectionAgeSeconds }}
drain_s: {{ .root.Values.drain.seconds }}
log_level: {{ .root.Values.logLevel }}
{{- with .root.Values.otlpEndpoint }}
otlp_endpoint: {{ . | quote }}
{{- end }}
{{- if .root.Values.tls.enabled }}
health_port: 50052
tls: {{- include "recmesh.tlsFiles" . | nindent 2 }}
allowed_clients: {{- toYaml .callers | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Addresses of every scenario's scoring service, by scenario. root */}}
{{- define "recmesh.scoringAddresses" -}}
{{- range $scenario, $_ := .Values.scenarios }}
{{ $scenario }}: {address: {{ include "recmesh.address" (dict "root" $ "component" "scoring" "scenario" $scenario) | quote }}}
{{- end }}
{{- end -}}

{{- define "recmesh.client" -}}
{address: {{ include "recmesh.address" . | quote }}}
{{- end -}}

{{/* Where a pod's certificate is mounted. */}}
{{- define "recmesh.tlsFiles" -}}
certificate_file: /etc/recmesh/tls/tls.crt
key_file: /etc/recmesh/tls/tls.key
ca_file: /etc/recmesh/tls/ca.crt
{{- end -}}

{{/* Identities of the online updates that run by schedule, as a YAML list. root */}}
{{- define "recmesh.updateIdentities" -}}
{{- $found := list -}}
{{- range $scenario, $_ := .Values.scenarios -}}
{{- $k := include "recmesh.kubernetes" (dict "root" $ "scenario" $scenario) | fromYaml -}}
{{- if $k.update.schedule -}}
{{- $found = append $found (include "recmesh.host" (dict "root" $ "component" "update" "scenario" $scenario)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}

{{/* Identities of every scenario's scoring service, as a YAML list. root */}}
{{- define "recmesh.scoringIdentities" -}}
{{- range $scenario, $_ := .Values.scenarios }}
- {{ include "recmesh.host" (dict "root" $ "component" "scoring" "scenario" $scenario) }}
{{- end }}
{{- end -}}

{{/* The specification of a volume claim. size, storageClass */}}
{{- define "recmesh.claim" -}}
accessModes: [ReadWriteOnce]
{{- with .storageClass }}
storageClassName: {{ . }}
{{- end }}
resources: {requests: {storage: {{ .size }}}}
{{- end -}}
