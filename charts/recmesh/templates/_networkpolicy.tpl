{{/* NetworkPolicies: what may call a component, and what it may call. */}}

{{/* A peer that is a component of this release. dict root, component, scenario? */}}
{{- define "recmesh.peer" -}}
- podSelector:
    matchLabels:
      app.kubernetes.io/name: recmesh
      app.kubernetes.io/instance: {{ .root.Release.Name }}
      app.kubernetes.io/component: {{ .component }}
      {{- if .scenario }}
      recmesh.io/scenario: {{ .scenario }}
      {{- end }}
{{- end -}}

{{/*
One policy. dict root, component, scenario?; ports: own ports; from: peers as YAML; metricsPort;
to: list of dict component, scenario?, port; models: scenarios whose bundles the pod fetches; extra: further egress rules
*/}}
{{- define "recmesh.networkPolicy" -}}
{{- $root := .root -}}
{{- $policy := .root.Values.networkPolicy -}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "recmesh.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels: {{- include "recmesh.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  {{- $metrics := and .metricsPort $policy.prometheus }}
  {{- $from := .from | default "" | trim }}
  {{- if or $from $metrics }}
  ingress:
    {{- if $from }}
    - from: {{- $from | nindent 8 }}
      ports:
        {{- range .ports }}
        - {protocol: TCP, port: {{ . }}}
        {{- end }}
    {{- end }}
    {{- if $metrics }}
    - from: {{- toYaml $policy.prometheus | nindent 8 }}
      ports: [{protocol: TCP, port: {{ .metricsPort }}}]
    {{- end }}
  {{- else }}
  ingress: []
  {{- end }}
  egress:
    - to: {{- toYaml $policy.dns | nindent 8 }}
      ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
    {{- range .to }}
    - to: {{- include "recmesh.peer" (merge (dict "root" $root) .) | nindent 8 }}
      ports: [{protocol: TCP, port: {{ .port }}}]
    {{- end }}
    {{- range .models }}
    {{- $k := include "recmesh.kubernetes" (dict "root" $root "scenario" .) | fromYaml }}
    {{- if eq $k.model.source.type "s3" }}
    {{- with $k.model.source.egress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- end }}
    {{- end }}
    {{- if and .metricsPort (ne .component "triton") $root.Values.otlpEndpoint }}
    {{- with $policy.collector }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- end }}
    {{- with .extra }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
