{{/* What every pod has: security, spread, drain, probes. */}}

{{- define "recmesh.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "recmesh.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Seconds from the order to stop until the kill: preStop, then calls in flight, then the end of the process. */}}
{{- define "recmesh.gracePeriod" -}}
{{- $drain := .Values.drain -}}
{{- if lt (mulf $drain.seconds 1000.0) (float64 (include "recmesh.longestDeadline" .)) -}}
{{- fail (printf "drain.seconds: is %v, shorter than the longest ranking.deadline_ms (%s); calls in flight would be cut off" $drain.seconds (include "recmesh.longestDeadline" .)) -}}
{{- end -}}
{{- add (int $drain.preStopSeconds) (ceil $drain.seconds) 5 -}}
{{- end -}}

{{- define "recmesh.meshAnnotations" -}}
{{- if eq .Values.mesh.kind "linkerd" }}
linkerd.io/inject: enabled
config.alpha.linkerd.io/proxy-enable-native-sidecar: "true"
config.linkerd.io/skip-inbound-ports: "9090,8002"
{{- else if eq .Values.mesh.kind "istio" }}
proxy.istio.io/config: '{"holdApplicationUntilProxyStarts": true}'
traffic.sidecar.istio.io/excludeInboundPorts: "9090,8002"
{{- end }}
{{- end -}}

{{/*
Metadata of a pod. dict root, component, scenario?, settings, checksum
*/}}
{{- define "recmesh.podMetadata" -}}
labels:
  {{- include "recmesh.labels" . | nindent 2 }}
  {{- if eq .root.Values.mesh.kind "istio" }}
  sidecar.istio.io/inject: "true"
  {{- end }}
  {{- with .settings.podLabels }}{{ toYaml . | nindent 2 }}{{ end }}
annotations:
  recmesh.io/checksum: {{ .checksum | quote }}
  {{- with include "recmesh.meshAnnotations" .root | trim }}{{ . | nindent 2 }}{{ end }}
  {{- with .settings.podAnnotations }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end -}}

{{/* Where and how a pod runs; the same for all. dict root, component, scenario?, settings, class: serving or batch */}}
{{- define "recmesh.podCommon" -}}
serviceAccountName: {{ include "recmesh.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext: {{- include "recmesh.podSecurity" .root | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- $class := .settings.priorityClassName -}}
{{- if and (not $class) .root.Values.priorityClasses.create -}}
{{- $class = printf "%s-%s" (include "recmesh.fullname" .root) (default "serving" .class) -}}
{{- end }}
{{- with $class }}
priorityClassName: {{ . }}
{{- end }}
{{- with .settings.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if ne (default "serving" .class) "batch" }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "recmesh.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Probes of one of our services: health by gRPC, on the port for probes where gRPC itself asks for certificates.
root, startupSeconds */}}
{{- define "recmesh.probes" -}}
{{- $port := ternary 50052 50051 .root.Values.tls.enabled -}}
startupProbe:
  grpc: {port: {{ $port }}}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: {{ div (add (int .startupSeconds) 1) 2 }}
readinessProbe:
  grpc: {port: {{ $port }}}
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 2
livenessProbe:
  grpc: {port: {{ $port }}, service: live}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end -}}

{{/* The container of one of our services. dict root, component, scenario?, settings, startupSeconds, mounts */}}
{{- define "recmesh.serviceContainer" -}}
- name: {{ .component }}
  image: {{ include "recmesh.image" (dict "root" .root "image" .root.Values.images.services) }}
  imagePullPolicy: {{ .root.Values.images.services.pullPolicy }}
  args: [python, -m, services.{{ .component }}, --config, /etc/recmesh/process/config.yaml]
  securityContext: {{- include "recmesh.containerSecurity" .root | nindent 4 }}
  ports:
    - {name: grpc, containerPort: 50051}
    - {name: metrics, containerPort: 9090}
    {{- if .root.Values.tls.enabled }}
    - {name: health, containerPort: 50052}
    {{- end }}
  {{- include "recmesh.probes" . | nindent 2 }}
  lifecycle:
    preStop:
      sleep: {seconds: {{ .root.Values.drain.preStopSeconds }}}
  resources: {{- toYaml .settings.resources | nindent 4 }}
  {{- with .settings.env }}
  env: {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - {name: config, mountPath: /etc/recmesh/process, readOnly: true}
    - {name: scenarios, mountPath: /etc/recmesh/scenarios, readOnly: true}
    - {name: tmp, mountPath: /tmp}
    {{- if .root.Values.tls.enabled }}
    - {name: tls, mountPath: /etc/recmesh/tls, readOnly: true}
    {{- end }}
    {{- if include "recmesh.knowsUsers" . }}
    - {name: privacy, mountPath: /etc/recmesh/privacy, readOnly: true}
    {{- end }}
    {{- with .mounts }}{{ . | nindent 4 }}{{ end }}
{{- end -}}

{{/* Volumes of one of our services beside its scenarios'. dict root, component, scenario? */}}
{{- define "recmesh.serviceVolumes" -}}
- name: config
  configMap: {name: {{ include "recmesh.name" . }}}
- name: tmp
  emptyDir: {}
{{- include "recmesh.tlsVolume" . }}
{{- include "recmesh.privacyVolume" . }}
{{- end -}}

{{/* Not empty for a component that makes pseudonyms, where there is a key. dict root, component */}}
{{- define "recmesh.knowsUsers" -}}
{{- if and .root.Values.privacy.keySecret.name (has .component (list "ranking" "feature" "feedback" "update")) }}true{{ end -}}
{{- end -}}

{{- define "recmesh.privacyVolume" -}}
{{- if include "recmesh.knowsUsers" . }}
- name: privacy
  secret:
    secretName: {{ .root.Values.privacy.keySecret.name }}
    # A key that everybody may read is refused.
    defaultMode: 0440
    items: [{key: {{ .root.Values.privacy.keySecret.key }}, path: pseudonym.key}]
{{- end }}
{{- end -}}

{{- define "recmesh.tlsVolume" -}}
{{- if .root.Values.tls.enabled }}
- name: tls
  secret: {secretName: {{ include "recmesh.tlsSecret" . }}}
{{- end }}
{{- end -}}

{{/* The secret with a component's certificate. dict root, component, scenario? */}}
{{- define "recmesh.tlsSecret" -}}
{{- $key := .component -}}
{{- if .scenario -}}{{- $key = printf "%s-%s" .component .scenario -}}{{- end -}}
{{- if .root.Values.tls.certManager.enabled -}}
{{- printf "%s-tls" (include "recmesh.name" .) -}}
{{- else -}}
{{- index .root.Values.tls.secrets $key | default (printf "%s-tls" (include "recmesh.name" .)) -}}
{{- end -}}
{{- end -}}

{{/* How many pods, unless an autoscaler says. */}}
{{- define "recmesh.replicas" -}}
{{- if not (dig "autoscaling" "enabled" false .settings) }}
replicas: {{ .settings.replicas }}
{{- end }}
{{- end -}}
