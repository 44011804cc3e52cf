{{/* A scenario: its settings for Kubernetes, its file, and where its model comes from. */}}

{{/* Section `kubernetes` over `scenarioDefaults`, as YAML; checked. dict root, scenario */}}
{{- define "recmesh.kubernetes" -}}
{{- $own := (index .root.Values.scenarios .scenario).kubernetes | default dict -}}
{{- $all := mustMergeOverwrite (deepCopy .root.Values.scenarioDefaults) (deepCopy $own) -}}
{{- $where := printf "scenarios.%s.kubernetes" .scenario -}}
{{- if not $all.model.version -}}
{{- fail (printf "%s.model.version: name the bundle to serve, e.g. --set %s.model.version=20261124-164213-78d6fb15" $where $where) -}}
{{- end -}}
{{- $source := $all.model.source -}}
{{- if and (eq $source.type "pvc") (not $source.claim) -}}
{{- fail (printf "%s.model.source.claim: name the volume claim that holds models/<scenario>/<version>" $where) -}}
{{- else if and (eq $source.type "s3") (not $source.url) -}}
{{- fail (printf "%s.model.source.url: give the bucket and prefix, e.g. s3://models/recmesh" $where) -}}
{{- else if and (eq $source.type "oci") (not $source.repository) -}}
{{- fail (printf "%s.model.source.repository: give the artifact's repository; its tags are the versions" $where) -}}
{{- end -}}
{{- if and (eq $source.type "oci") (not (semverCompare ">=1.33.0-0" .root.Capabilities.KubeVersion.Version)) -}}
{{- fail (printf "%s.model.source: oci mounts the artifact as an image volume, which needs Kubernetes 1.33 or newer; use pvc or s3" $where) -}}
{{- end -}}
{{- $pool := $all.pool.autoscaling -}}
{{- if and $pool.enabled (eq $pool.kind "keda") (not $pool.prometheus) -}}
{{- fail (printf "%s.pool.autoscaling.prometheus: KEDA needs the address of Prometheus, e.g. http://prometheus.monitoring:9090" $where) -}}
{{- end -}}
{{- if and $all.canary.version (dig "ranking" "experiment" false (index .root.Values.scenarios .scenario)) -}}
{{- fail (printf "%s.canary: scenarios.%s.ranking.experiment deals the users already; give one of the two" $where .scenario) -}}
{{- end -}}
{{- if and $all.canary.version (eq $all.canary.version $all.model.version) -}}
{{- fail (printf "%s.canary.version: is the current version; name another one" $where) -}}
{{- end -}}
{{- if and $all.mirror.version (eq $all.mirror.version $all.model.version) -}}
{{- fail (printf "%s.mirror.version: is the current version; name another one" $where) -}}
{{- end -}}
{{- if and .root.Values.rollout.enabled $all.rollout.enabled -}}
{{- $off := printf "or set %s.rollout.enabled to false" $where -}}
{{- if $all.canary.version -}}
{{- fail (printf "%s.canary: the rollout controller deals this scenario's users; leave canary.version empty, %s" $where $off) -}}
{{- else if dig "ranking" "experiment" false (index .root.Values.scenarios .scenario) -}}
{{- fail (printf "%s.rollout: scenarios.%s.ranking.experiment deals the users already; remove it, %s" $where .scenario $off) -}}
{{- else if eq $source.type "oci" -}}
{{- fail (printf "%s.model.source: the rollout controller needs pvc or s3, since an artifact's volume stands in the pod's template; use one of them, %s" $where $off) -}}
{{- end -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}

{{/* Not empty where the rollout controller moves the scenario's versions. dict root, kubernetes */}}
{{- define "recmesh.rolled" -}}
{{- if and .root.Values.rollout.enabled .kubernetes.rollout.enabled }}true{{ end -}}
{{- end -}}

{{/* The versions that are loaded, the current one first, as a YAML list. dict kubernetes */}}
{{- define "recmesh.versions" -}}
{{- $k := .kubernetes -}}
{{- $versions := prepend $k.model.also $k.model.version -}}
{{- range list $k.canary.version $k.mirror.version -}}
{{- if . -}}{{- $versions = append $versions . -}}{{- end -}}
{{- end -}}
{{- toYaml ($versions | uniq) -}}
{{- end -}}

{{/* The scenario file: what the values say but for Kubernetes; checked. dict root, scenario */}}
{{- define "recmesh.scenarioFile" -}}
{{- $_ := include "recmesh.kubernetes" . -}}
{{- toYaml (dict "scenarios" (dict .scenario (omit (index .root.Values.scenarios .scenario) "kubernetes"))) -}}
{{- end -}}

{{/* The canary as an experiment of ranking; a version has a name of its own, since counts are kept by name.
dict canary */}}
{{- define "recmesh.canaryExperiment" -}}
name: canary-{{ printf "%s %s" .canary.version .canary.salt | sha256sum | trunc 10 }}
salt: {{ .canary.salt | quote }}
variants:
  - {name: current, percent: {{ subf 100.0 .canary.percent }}}
  - {name: canary, percent: {{ .canary.percent }}, model_version: {{ .canary.version | quote }}}
{{- with .canary.earlier }}
earlier:
  {{- range . }}
  - {current: {{ subf 100.0 . }}, canary: {{ . }}}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Shadow requests as ranking reads them. dict mirror */}}
{{- define "recmesh.mirror" -}}
model_version: {{ .mirror.version | quote }}
percent: {{ .mirror.percent }}
max_in_flight: {{ int .mirror.maxInFlight }}
queue_size: {{ int .mirror.queueSize }}
{{- end -}}

{{/* Settings of `python -m deploy.models`. dict root, scenario, pool: whether a Triton repository is laid out */}}
{{- define "recmesh.modelsConfig" -}}
{{- $k := include "recmesh.kubernetes" . | fromYaml -}}
{{- $versions := include "recmesh.versions" (dict "kubernetes" $k) | fromYamlArray -}}
{{- $source := $k.model.source -}}
scenario_files: [/etc/recmesh/scenarios/{{ .scenario }}.yaml]
models: /models
scenarios:
  {{ .scenario }}:
    current: {{ first $versions | quote }}
    also: {{ rest $versions | toJson }}
    {{- if include "recmesh.rolled" (dict "root" .root "kubernetes" $k) }}
    served_env: RECMESH_SERVED
    {{- end }}
    source:
      {{- if eq $source.type "s3" }}
      kind: s3
      url: {{ $source.url | quote }}
      region: {{ $source.region | quote }}
      {{- with $source.endpoint }}
      endpoint: {{ . | quote }}
      {{- end }}
      {{- else if eq $source.type "oci" }}
      kind: folder
      path: "/source/{scenario}/{version}"
      {{- else }}
      kind: folder
      path: {{ printf "/source/{scenario}/%s" (list $source.path "{scenario}/{version}" | join "/" | trimPrefix "/") | quote }}
      {{- end }}
{{- if .pool }}
triton_repository: /repository
{{- end }}
{{- end -}}

{{/* Volumes that bundles come from. dict root, scenario */}}
{{- define "recmesh.sourceVolumes" -}}
{{- $k := include "recmesh.kubernetes" . | fromYaml -}}
{{- $scenario := .scenario -}}
{{- $source := $k.model.source -}}
{{- if eq $source.type "pvc" }}
- name: source-{{ $scenario }}
  persistentVolumeClaim: {claimName: {{ $source.claim | quote }}, readOnly: true}
{{- else if eq $source.type "oci" }}
{{- range $n, $version := include "recmesh.versions" (dict "kubernetes" $k) | fromYamlArray }}
- name: model-{{ $scenario }}-{{ $n }}
  image: {reference: {{ printf "%s:%s" $source.repository $version | quote }}, pullPolicy: IfNotPresent}
{{- end }}
{{- end }}
{{- end -}}

{{/* Where they are mounted. dict root, scenario */}}
{{- define "recmesh.sourceMounts" -}}
{{- $k := include "recmesh.kubernetes" . | fromYaml -}}
{{- $scenario := .scenario -}}
{{- $source := $k.model.source -}}
{{- if eq $source.type "pvc" }}
- {name: source-{{ $scenario }}, mountPath: /source/{{ $scenario }}, readOnly: true}
{{- else if eq $source.type "oci" }}
{{- range $n, $version := include "recmesh.versions" (dict "kubernetes" $k) | fromYamlArray }}
- {name: model-{{ $scenario }}-{{ $n }}, mountPath: {{ printf "/source/%s/%s" $scenario $version | quote }}, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{/* The init container that brings a scenario's bundles and verifies them. dict root, scenario, pool */}}
{{- define "recmesh.modelsContainer" -}}
{{- $k := include "recmesh.kubernetes" . | fromYaml -}}
{{- $secret := $k.model.source.credentialsSecret -}}
- name: models-{{ .scenario }}
  image: {{ include "recmesh.image" (dict "root" .root "image" .root.Values.images.services) }}
  imagePullPolicy: {{ .root.Values.images.services.pullPolicy }}
  args: [python, -m, deploy.models, --config, /etc/recmesh/models-{{ .scenario }}/{{ ternary "pool" "models" (default false .pool) }}.yaml]
  securityContext: {{- include "recmesh.containerSecurity" .root | nindent 4 }}
  {{- if and (eq $k.model.source.type "s3") $secret }}
  envFrom:
    - secretRef: {name: {{ $secret | quote }}}
  {{- end }}
  {{- if include "recmesh.rolled" (dict "root" .root "kubernetes" $k) }}
  env:
    - name: RECMESH_SERVED
      valueFrom: {fieldRef: {fieldPath: "metadata.annotations['recmesh.io/served-{{ .scenario }}']"}}
  # The rollout controller tells what went wrong.
  terminationMessagePolicy: FallbackToLogsOnError
  {{- end }}
  resources: {{- toYaml $k.model.fetchResources | nindent 4 }}
  volumeMounts:
    - {name: scenarios, mountPath: /etc/recmesh/scenarios, readOnly: true}
    - {name: models-{{ .scenario }}, mountPath: /etc/recmesh/models-{{ .scenario }}, readOnly: true}
    - {name: models, mountPath: /models}
    - {name: tmp, mountPath: /tmp}
    {{- if .pool }}
    - {name: repository, mountPath: /repository}
    {{- end }}
    {{- with include "recmesh.sourceMounts" . | trim }}{{ . | nindent 4 }}{{ end }}
{{- end -}}

{{/* Changes when the scenario's file or models do. dict root, scenario */}}
{{- define "recmesh.scenarioChecksum" -}}
{{- list (include "recmesh.scenarioFile" .) (include "recmesh.modelsConfig" .) | join "\n" | sha256sum -}}
{{- end -}}

{{/* The files of all scenarios as one volume, for the services that serve all. dict root */}}
{{- define "recmesh.allScenariosVolume" -}}
- name: scenarios
  projected:
    sources:
      {{- range $scenario, $_ := .root.Values.scenarios }}
      - configMap:
          name: {{ include "recmesh.name" (dict "root" $.root "component" "scenario" "scenario" $scenario) }}
          items: [{key: {{ $scenario }}.yaml, path: {{ $scenario }}.yaml}]
      {{- end }}
{{- end -}}

{{- define "recmesh.scenarioFiles" -}}
[{{ range $n, $scenario := keys .Values.scenarios | sortAlpha }}{{ if $n }}, {{ end }}/etc/recmesh/scenarios/{{ $scenario }}.yaml{{ end }}]
{{- end -}}

{{/* Longest deadline of any scenario, milliseconds. */}}
{{- define "recmesh.longestDeadline" -}}
{{- $longest := 0 -}}
{{- range $_, $scenario := .Values.scenarios -}}
{{- $longest = max $longest (int (dig "ranking" "deadline_ms" 300 $scenario)) -}}
{{- end -}}
{{- $longest -}}
{{- end -}}
