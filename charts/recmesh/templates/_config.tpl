{{/* Settings of each service that serves all scenarios. */}}

{{- define "recmesh.ranking.config" -}}
server:
  {{- include "recmesh.server" . | nindent 2 }}
scenario_files: {{ include "recmesh.scenarioFiles" .root }}
{{- range list "feature" "candidate" "feedback" }}
{{ . }}: {{ include "recmesh.client" (dict "root" $.root "component" .) }}
{{- end }}
scoring:
  {{- include "recmesh.scoringAddresses" .root | indent 2 }}
spool: /var/lib/recmesh/spool
experiments: /etc/recmesh/experiments
{{- include "recmesh.privacy" .root }}
{{- end }}

{{- define "recmesh.candidate.config" -}}
server:
  {{- include "recmesh.server" (dict "root" . "callers" (list (include "recmesh.host" (dict "root" . "component" "ranking")))) | nindent 2 }}
scenario_files: {{ include "recmesh.scenarioFiles" . }}
models: /models
index:
  engine: {{ .Values.candidate.index.engine }}
  {{- if eq .Values.candidate.index.engine "milvus" }}
  {{- $settings := deepCopy .Values.candidate.index.milvus }}
  {{- if not $settings.uri }}
  {{- fail "candidate.index.milvus.uri: give http://host:port of the server" }}
  {{- end }}
  {{- if .Values.candidate.index.tokenSecret.name }}
  {{- $_ := set $settings "token_file" "/etc/recmesh/index/token" }}
  {{- end }}
  milvus: {{- toYaml $settings | nindent 4 }}
  {{- end }}
{{- range list "feature" "feedback" }}
{{ . }}: {{ include "recmesh.client" (dict "root" $ "component" .) }}
{{- end }}
scoring:
  {{- include "recmesh.scoringAddresses" . | indent 2 }}
{{- end }}

{{- define "recmesh.feature.config" -}}
{{- $store := .Values.feature.store -}}
{{- $callers := list -}}
{{- range list "ranking" "candidate" -}}{{- $callers = append $callers (include "recmesh.host" (dict "root" $ "component" .)) -}}{{- end -}}
{{- $callers = concat $callers (include "recmesh.scoringIdentities" . | fromYamlArray) (include "recmesh.updateIdentities" . | fromYamlArray) .Values.tls.catalogueWriters -}}
server:
  {{- include "recmesh.server" (dict "root" . "callers" ($callers | uniq)) | nindent 2 }}
scenario_files: {{ include "recmesh.scenarioFiles" . }}
feedback: {{ include "recmesh.client" (dict "root" . "component" "feedback") }}
{{- include "recmesh.privacy" . }}
store:
  engine: {{ $store.engine }}
  {{- if eq $store.engine "lmdb" }}
  path: /var/lib/recmesh/feature
  map_bytes: {{ int64 $store.lmdb.mapBytes }}
  {{- else }}
  {{- $settings := deepCopy $store.valkey }}
  {{- if and (not $settings.addresses) .Values.valkey.enabled }}
  {{- $_ := set $settings "addresses" (list (printf "%s:6379" (include "recmesh.host" (dict "root" . "component" "valkey")))) }}
  {{- end }}
  {{- if not $settings.addresses }}
  {{- fail "feature.store.valkey.addresses: give host:port of the servers, or set valkey.enabled" }}
  {{- end }}
  {{- if $store.passwordSecret.name }}
  {{- $_ := set $settings "password_file" "/etc/recmesh/store/password" }}
  {{- end }}
  {{- toYaml $settings | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "recmesh.feedback.config" -}}
{{- $store := .Values.feedback.store -}}
{{- $callers := list -}}
{{- range list "ranking" "candidate" "feature" -}}{{- $callers = append $callers (include "recmesh.host" (dict "root" $ "component" .)) -}}{{- end -}}
{{- $callers = concat $callers (include "recmesh.updateIdentities" . | fromYamlArray) .Values.tls.clients -}}
server:
  {{- include "recmesh.server" (dict "root" . "callers" ($callers | uniq)) | nindent 2 }}
scenario_files: {{ include "recmesh.scenarioFiles" . }}
{{- include "recmesh.privacy" . }}
store:
  engine: {{ $store.engine }}
  path: /var/lib/recmesh/feedback
  {{- if eq $store.engine "jetstream" }}
  {{- $settings := deepCopy $store.jetstream }}
  {{- if and (not $settings.servers) .Values.nats.enabled }}
  {{- $_ := set $settings "servers" (list (printf "nats://%s:4222" (include "recmesh.host" (dict "root" . "component" "nats")))) }}
  {{- end }}
  {{- if not $settings.servers }}
  {{- fail "feedback.store.jetstream.servers: give nats://host:port of the servers, or set nats.enabled" }}
  {{- end }}
  {{- if $store.passwordSecret.name }}
  {{- $_ := set $settings "password_file" "/etc/recmesh/store/password" }}
  {{- end }}
  {{- toYaml $settings | nindent 2 }}
  {{- end }}
{{- end }}

{{/* Where users' pseudonyms get their key. */}}
{{- define "recmesh.privacy" -}}
{{- if .Values.privacy.keySecret.name }}
privacy: {key_file: /etc/recmesh/privacy/pseudonym.key}
{{- end }}
{{- end }}
