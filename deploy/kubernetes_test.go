package deploy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/settings"
)

// cluster is what "kubectl apply -k" would create.
type cluster struct {
	config     corev1.ConfigMap
	deployment appsv1.Deployment
	service    corev1.Service
	budget     policyv1.PodDisruptionBudget
	autoscaler autoscalingv2.HorizontalPodAutoscaler
	scaled     scaledObject
	trigger    triggerAuthentication
}

// scaledObject has those fields of KEDA's that the example uses. KEDA's own types would bring all
// of KEDA.
type scaledObject struct {
	APIVersion string
	Kind       string
	Metadata   struct {
		Name   string
		Labels map[string]string
	}
	Spec struct {
		ScaleTargetRef                                    struct{ Name string }
		MinReplicaCount, MaxReplicaCount, PollingInterval int
		Advanced                                          struct {
			HorizontalPodAutoscalerConfig struct {
				Behavior autoscalingv2.HorizontalPodAutoscalerBehavior //nolint:misspell // its name
			}
		}
		Triggers []struct {
			Type, Name        string
			Metadata          struct{ Address, ListName, ListLength string }
			AuthenticationRef struct{ Name string }
		}
	}
}

type triggerAuthentication struct {
	APIVersion string
	Kind       string
	Metadata   struct {
		Name   string
		Labels map[string]string
	}
	Spec struct {
		SecretTargetRef []struct{ Parameter, Name, Key string }
	}
}

// build renders one of the kustomizations and reads what comes out; a field that Kubernetes does
// not know is an error.
func build(t *testing.T, name string) cluster {
	t.Helper()
	var c cluster
	for kind, text := range render(t, name) {
		into, ok := map[string]any{
			"ConfigMap": &c.config, "Deployment": &c.deployment, "Service": &c.service, "PodDisruptionBudget": &c.budget,
			"HorizontalPodAutoscaler": &c.autoscaler, "ScaledObject": &c.scaled, "TriggerAuthentication": &c.trigger,
		}[kind]
		if !ok {
			t.Fatalf("%s: nobody looks at a %s", name, kind)
		}
		if err := yaml.UnmarshalStrict(text, into); err != nil {
			t.Errorf("%s: %s: %v", name, kind, err)
		}
	}
	return c
}

// render returns what one of the kustomizations creates, as YAML, by kind: there is one of each.
func render(t *testing.T, name string) map[string][]byte {
	t.Helper()
	rendered, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), "kubernetes/"+name)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, resource := range rendered.Resources() {
		text, err := resource.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		if all[resource.GetKind()] != nil {
			t.Fatalf("%s: two of %s", name, resource.GetKind())
		}
		all[resource.GetKind()] = text
	}
	return all
}

func TestKubernetes_pods(t *testing.T) {
	t.Parallel()
	c := build(t, "base")
	pod := c.deployment.Spec.Template
	if n := *c.deployment.Spec.Replicas; n < 2 {
		t.Errorf("%d workers, want two for a node to fail", n)
	}
	for what, selector := range map[string]map[string]string{
		"Deployment": c.deployment.Spec.Selector.MatchLabels, "Service": c.service.Spec.Selector,
		"PodDisruptionBudget": c.budget.Spec.Selector.MatchLabels,
		"topology":            pod.Spec.TopologySpreadConstraints[0].LabelSelector.MatchLabels,
	} {
		if len(selector) == 0 || !labels.SelectorFromSet(selector).Matches(labels.Set(pod.Labels)) {
			t.Errorf("the %s selects %v, the pods have %v", what, selector, pod.Labels)
		}
	}
	worker := pod.Spec.Containers[0]
	if !pinned.MatchString(worker.Image) {
		t.Errorf("the image is %s, want one with a version", worker.Image)
	}
	for what, got := range map[string]string{
		"/healthz startup":  worker.StartupProbe.HTTPGet.Path + " startup",
		"/healthz liveness": worker.LivenessProbe.HTTPGet.Path + " liveness",
		"/readyz readiness": worker.ReadinessProbe.HTTPGet.Path + " readiness",
	} {
		if got != what {
			t.Errorf("got %s, want %s", got, what)
		}
	}
	if port := c.service.Spec.Ports[0].TargetPort.String(); port != worker.Ports[0].Name {
		t.Errorf("the Service leads to port %s, the pods have %s", port, worker.Ports[0].Name)
	}
	if !strings.HasSuffix(c.config.Data["EMAIL_HTTP_ADDR"], ":8025") || worker.Ports[0].ContainerPort != 8025 {
		t.Errorf("the worker listens on %s, the probes ask port %d", c.config.Data["EMAIL_HTTP_ADDR"], worker.Ports[0].ContainerPort)
	}
	safe := worker.SecurityContext
	if !*pod.Spec.SecurityContext.RunAsNonRoot || *safe.AllowPrivilegeEscalation || !*safe.ReadOnlyRootFilesystem ||
		!slices.Equal(safe.Capabilities.Drop, []corev1.Capability{"ALL"}) || *pod.Spec.AutomountServiceAccountToken ||
		worker.Resources.Limits.Memory().IsZero() {
		t.Errorf("the container may do more than it needs: %+v %+v", pod.Spec.SecurityContext, safe)
	}
}

func TestKubernetes_grace(t *testing.T) {
	t.Parallel()
	pod := build(t, "base").deployment.Spec.Template.Spec
	got := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second
	if least := settings.Default().Worker.ShutdownTimeout + 15*time.Second; got < least {
		t.Errorf("a worker is killed after %v, want at least %v", got, least)
	}
	if pod.Containers[0].Lifecycle != nil {
		t.Error("something runs before the worker is told to stop, in the time that it has for that")
	}
}

// A worker whose mail server is away is not ready, and its metrics are needed then.
func TestKubernetes_scraped(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"base", "keda", "hpa"} {
		service := build(t, name).service.Spec
		if service.ClusterIP != corev1.ClusterIPNone || !service.PublishNotReadyAddresses {
			t.Errorf("%s: cluster IP %q, addresses of those that are not ready: %v; want each worker at any time", name, service.ClusterIP, service.PublishNotReadyAddresses)
		}
	}
}

// The settings and the secret are those that the pods and README name.
func TestKubernetes_settings(t *testing.T) {
	t.Parallel()
	c := build(t, "base")
	known := settingNames()
	for _, name := range slices.Sorted(maps.Keys(c.config.Data)) {
		if !known[name] {
			t.Errorf("%s is not a setting", name)
		}
	}
	from := c.deployment.Spec.Template.Spec.Containers[0].EnvFrom
	if from[0].ConfigMapRef.Name != c.config.Name || from[1].SecretRef.Name != "mailpouch" {
		t.Errorf("the pods read %+v, the settings are in %s", from, c.config.Name)
	}
}

// The intake listens where its Service leads, reads its files where its volume has them, and may take all the memory that it wants to.
func TestKubernetes_intake(t *testing.T) {
	t.Parallel()
	c := build(t, "intake")
	pod := c.deployment.Spec.Template
	for what, selector := range map[string]map[string]string{
		"Deployment": c.deployment.Spec.Selector.MatchLabels, "Service": c.service.Spec.Selector, "PodDisruptionBudget": c.budget.Spec.Selector.MatchLabels,
	} {
		if len(selector) == 0 || !labels.SelectorFromSet(selector).Matches(labels.Set(pod.Labels)) {
			t.Errorf("the %s selects %v, the pods have %v", what, selector, pod.Labels)
		}
	}
	if labels.SelectorFromSet(build(t, "base").service.Spec.Selector).Matches(labels.Set(pod.Labels)) {
		t.Error("the Service of the workers has the intake too")
	}
	known, container := settingNames(), pod.Spec.Containers[0]
	if !slices.Equal(container.Args, []string{"intake"}) || container.EnvFrom[0].ConfigMapRef.Name != c.config.Name || container.EnvFrom[1].SecretRef.Name != "mailpouch" {
		t.Errorf("%q with %+v", container.Args, container.EnvFrom)
	}
	for name, value := range c.config.Data {
		if !known[name] {
			t.Errorf("%s is not a setting", name)
		}
		if strings.HasSuffix(name, "FILE") && !strings.HasPrefix(value, container.VolumeMounts[0].MountPath+"/") {
			t.Errorf("%s=%s is not where the secret is", name, value)
		}
	}
	ports := map[string]string{}
	for _, p := range container.Ports {
		ports[p.Name] = fmt.Sprintf(":%d", p.ContainerPort)
	}
	for port, name := range map[string]string{"http": "EMAIL_HTTP_ADDR", "submission": "EMAIL_SUBMISSION_ADDR", "api": "EMAIL_API_ADDR"} {
		if ports[port] == "" || c.config.Data[name] != ports[port] {
			t.Errorf("%s is %s, the port is %q", name, c.config.Data[name], ports[port])
		}
	}
	for _, p := range c.service.Spec.Ports {
		if ports[p.TargetPort.StrVal] == "" {
			t.Errorf("the Service's %s leads nowhere", p.Name)
		}
	}
	if got := *pod.Spec.TerminationGracePeriodSeconds; got < 45 {
		t.Errorf("it is killed after %d s, and clients have 30", got)
	}
	if least := own(t, takesIn()) * (room + 1) / room; container.Resources.Limits.Memory().Value() < least {
		t.Errorf("it may have %d bytes, want at least %d", container.Resources.Limits.Memory().Value(), least)
	}
}

func TestKubernetes_keda(t *testing.T) {
	t.Parallel()
	c := build(t, "keda")
	spec := c.scaled.Spec
	if c.deployment.Spec.Replicas != nil || spec.ScaleTargetRef.Name != c.deployment.Name {
		t.Errorf("KEDA scales %s, and the Deployment %s says %v", spec.ScaleTargetRef.Name, c.deployment.Name, c.deployment.Spec.Replicas)
	}
	if spec.MinReplicaCount < 1 || spec.MaxReplicaCount <= spec.MinReplicaCount {
		t.Errorf("from %d to %d workers: none would bring no mail back that waits for its time", spec.MinReplicaCount, spec.MaxReplicaCount)
	}
	var lists, want []string
	for _, trigger := range spec.Triggers {
		lists = append(lists, trigger.Metadata.ListName)
		if trigger.Type != "redis" || trigger.AuthenticationRef.Name != c.trigger.Metadata.Name || trigger.Metadata.ListLength == "" {
			t.Errorf("trigger %+v", trigger)
		}
	}
	for queue := range settings.Default().Worker.Queues {
		for _, mass := range []bool{false, true} {
			want = append(want, "asynq:{"+wire.QueueName{Queue: queue, Bulk: mass}.String()+"}:pending")
		}
	}
	slices.Sort(lists)
	slices.Sort(want)
	if !slices.Equal(lists, want) {
		t.Errorf("KEDA looks at %v, want %v", lists, want)
	}
}

func TestKubernetes_hpa(t *testing.T) {
	t.Parallel()
	c := build(t, "hpa")
	spec := c.autoscaler.Spec
	if c.deployment.Spec.Replicas != nil || spec.ScaleTargetRef.Name != c.deployment.Name || *spec.MinReplicas < 1 {
		t.Errorf("it scales %+v from %d, and the Deployment %s says %v", spec.ScaleTargetRef, *spec.MinReplicas, c.deployment.Name, c.deployment.Spec.Replicas)
	}
	text, err := os.ReadFile("kubernetes/hpa/adapter.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var adapter struct {
		ExternalRules []struct {
			SeriesQuery, MetricsQuery string
			Resources                 struct{ Namespaced bool }
			Name                      struct{ As string }
		}
	}
	if err := yaml.UnmarshalStrict(text, &adapter); err != nil {
		t.Fatal(err)
	}
	if len(adapter.ExternalRules) != 1 || adapter.ExternalRules[0].Name.As != spec.Metrics[0].External.Metric.Name {
		t.Errorf("the adapter makes %+v, the autoscaler wants %s", adapter.ExternalRules, spec.Metrics[0].External.Metric.Name)
	}
}

// readEnv reads lines of NAME=value.
func readEnv(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	lines := bufio.NewReader(bytes.NewReader(text))
	for {
		line, err := lines.ReadString('\n')
		if name, _, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			names = append(names, name)
		}
		if errors.Is(err, io.EOF) {
			return names
		}
	}
}
