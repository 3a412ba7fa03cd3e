{{- define "segserve.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 53 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 53 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "segserve.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end }}

{{- define "segserve.labels" -}}
{{ include "segserve.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "segserve.redis.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: redis
{{- end }}

{{- define "segserve.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* What every container is held to. */}}
{{- define "segserve.confined" -}}
allowPrivilegeEscalation: false
capabilities: { drop: [ALL] }
readOnlyRootFilesystem: true
runAsNonRoot: true
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "segserve.resources" -}}
{{- $resources := deepCopy .Values.resources }}
{{- if .Values.gpu.enabled }}
{{- $resources = mergeOverwrite $resources (dict "limits" (dict .Values.gpu.resource .Values.gpu.count)) }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{- define "segserve.environment" -}}
- { name: SEGSERVE_DRAIN_SECONDS, value: {{ .Values.drain.seconds | quote }} }
- { name: SEGSERVE_RESULTS_BYTES, value: {{ .Values.temporary.results | quote }} }
{{- if .Values.redis.enabled }}
- { name: SEGSERVE_RESULTS, value: "redis://{{ include "segserve.name" . }}-redis" }
{{- else if .Values.redis.secret }}
- name: SEGSERVE_RESULTS
  valueFrom: { secretKeyRef: { name: {{ .Values.redis.secret }}, key: url } }
{{- else if .Values.redis.url }}
- { name: SEGSERVE_RESULTS, value: {{ .Values.redis.url | quote }} }
{{- end }}
{{- if .Values.keys.secret }}
- { name: SEGSERVE_API_KEYS, value: "@/run/secrets/segserve/api_keys" }
{{- if .Values.keys.admin }}
- { name: SEGSERVE_ADMIN_KEYS, value: "@/run/secrets/segserve/admin_keys" }
{{- end }}
{{- end }}
{{- $given := dict "LOG_FORMAT" "json" }}
{{- if .Values.gpu.enabled }}{{ $given = set $given "PROVIDERS" "cuda,cpu" }}{{ end }}
{{- if or .Values.autoscaling.enabled .Values.kserve.enabled (gt (int .Values.replicas) 1) }}{{ $given = set $given "REPLICATED" "true" }}{{ end }}
{{- range $name, $value := merge (deepCopy .Values.settings) $given }}
- { name: SEGSERVE_{{ $name }}, value: {{ $value | quote }} }
{{- end }}
{{- end }}

{{- /* Loading is given five minutes; after that, live is asked every ten seconds. */}}
{{- define "segserve.probes" -}}
startupProbe:
  httpGet: { path: /health/startup, port: http }
  periodSeconds: 2
  failureThreshold: 150
livenessProbe:
  httpGet: { path: /health/live, port: http }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: { path: /health/ready, port: http }
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end }}

{{- define "segserve.mounts" -}}
- { name: tmp, mountPath: /tmp }
{{- if and (ne .Values.models.from "image") (not .Values.kserve.enabled) }}
- { name: models, mountPath: /models, readOnly: true }
{{- end }}
{{- if .Values.keys.secret }}
- { name: keys, mountPath: /run/secrets/segserve, readOnly: true }
{{- end }}
{{- end }}

{{- define "segserve.volumes" -}}
- name: tmp
  emptyDir: { sizeLimit: {{ .Values.temporary.sizeLimit }} }
{{- if not .Values.kserve.enabled }}
{{- if eq .Values.models.from "claim" }}
- name: models
  persistentVolumeClaim: { claimName: {{ .Values.models.claim }}, readOnly: true }
{{- else if eq .Values.models.from "init" }}
- name: models
  emptyDir: { sizeLimit: {{ .Values.models.init.sizeLimit }} }
{{- end }}
{{- end }}
{{- if .Values.keys.secret }}
- name: keys
  secret: { secretName: {{ .Values.keys.secret }}, defaultMode: 0444 } # hashes; KServe sets no group
{{- end }}
{{- end }}

{{- /* Three quarters of its memory, as Redis writes sizes: the rest is for its own. */}}
{{- define "segserve.redis.most" -}}
{{- $size := .Values.redis.memory }}
{{- if hasSuffix "Gi" $size }}{{ div (mul 768 (trimSuffix "Gi" $size | int)) 1 }}mb
{{- else }}{{ div (mul 3 (trimSuffix "Mi" $size | int)) 4 }}mb
{{- end }}
{{- end }}
