package deploy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/mailpouch/mailpouch/settings"
)

// loadCompose reads docker-compose.yml with the library that Compose reads it with.
// Services with a profile of their own are there too.
func loadCompose(t *testing.T, env ...string) *types.Project {
	t.Helper()
	return loadProfiles(t, []string{"*"}, env...)
}

func loadProfiles(t *testing.T, profiles []string, env ...string) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"../docker-compose.yml"},
		cli.WithName("mailpouch"), cli.WithEnv(env), cli.WithProfiles(profiles))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// pinned is an image with the whole of a version in its tag.
var pinned = regexp.MustCompile(`^[a-z0-9./-]+:v?\d+\.\d+\.\d+(-[a-z]+)?$`)

func TestCompose_services(t *testing.T) {
	t.Parallel()
	project := loadCompose(t)
	want := []string{"asynqmon", "intake", "mail", "redis", "web", "worker"}
	if got := slices.Sorted(maps.Keys(project.Services)); !slices.Equal(got, want) {
		t.Fatalf("services %v, want %v", got, want)
	}
	for name, s := range project.Services {
		for what, ok := range map[string]bool{
			"has no health check":               s.HealthCheck != nil && !s.HealthCheck.Disable && len(s.HealthCheck.Test) > 1,
			"has no image with a version":       s.Build != nil && strings.HasPrefix(s.Image, "mailpouch") || pinned.MatchString(s.Image),
			"may run as root":                   regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(s.User),
			"may write to its file system":      s.ReadOnly,
			"keeps capabilities":                slices.Equal(s.CapDrop, []string{"ALL"}) && len(s.CapAdd) == 0,
			"may gain privileges":               slices.Contains(s.SecurityOpt, "no-new-privileges:true"),
			"has no limit of memory":            s.MemLimit > 0,
			"has no limit of processor time":    s.CPUS > 0,
			"has no limit of processes":         s.PidsLimit > 0,
			"is not started again":              s.Restart == "unless-stopped",
			"keeps its log for ever":            s.Logging != nil && s.Logging.Options["max-size"] != "",
			"has more than its own of the host": !s.Privileged && s.NetworkMode == "" && s.Pid == "" && s.Ipc == "",
		} {
			if !ok {
				t.Errorf("%s %s", name, what)
			}
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s can be reached from other machines", name, port.Published)
			}
		}
	}
}

// What shows the queue without asking for a password starts only if it is asked for, and
// shows no more than it must.
func TestCompose_profiles(t *testing.T) {
	t.Parallel()
	want := []string{"mail", "redis", "web", "worker"}
	if got := slices.Sorted(maps.Keys(loadProfiles(t, nil).Services)); !slices.Equal(got, want) {
		t.Errorf("docker compose up starts %v, want %v", got, want)
	}
	asked, ok := loadProfiles(t, []string{"asynqmon"}).Services["asynqmon"]
	if !ok {
		t.Fatal("the profile asynqmon does not start it")
	}
	for name, want := range map[string]string{"READ_ONLY": "true", "MAX_PAYLOAD_LENGTH": "0", "MAX_RESULT_LENGTH": "0"} {
		if got := asked.Environment[name]; got == nil || *got != want {
			t.Errorf("asynqmon runs without %s=%s", name, want)
		}
	}
	for name, s := range loadCompose(t).Services {
		if _, ok := s.DependsOn["asynqmon"]; ok {
			t.Errorf("%s starts asynqmon", name)
		}
	}
}

// The intake starts only if it is asked for, listens where its ports lead, reads its files where they are mounted, and may take all the memory
// that it wants to.
func TestCompose_intake(t *testing.T) {
	t.Parallel()
	intake, ok := loadProfiles(t, []string{"intake"}).Services["intake"]
	if !ok || !slices.Equal(intake.Command, []string{"intake"}) {
		t.Fatalf("the profile intake starts %q", intake.Command)
	}
	if len(intake.Volumes) != 1 || !intake.Volumes[0].ReadOnly || bool(intake.Volumes[0].Bind.CreateHostPath) {
		t.Fatalf("volumes %+v, want one that it cannot write to, and that somebody has made", intake.Volumes)
	}
	for name, value := range intake.Environment {
		if strings.HasSuffix(name, "FILE") && !strings.HasPrefix(*value, intake.Volumes[0].Target+"/") {
			t.Errorf("%s=%s is not where the secrets are", name, *value)
		}
	}
	leads := map[string]bool{}
	for _, port := range intake.Ports {
		leads[fmt.Sprintf(":%d", port.Target)] = true
	}
	for _, name := range []string{"EMAIL_SUBMISSION_ADDR", "EMAIL_API_ADDR"} {
		if addr := intake.Environment[name]; addr == nil || !leads[*addr] {
			t.Errorf("no port leads to %s", name)
		}
	}
	if intake.StopGracePeriod == nil || time.Duration(*intake.StopGracePeriod) < 45*time.Second {
		t.Errorf("it is killed after %v, and clients have 30 s", intake.StopGracePeriod)
	}
	if least := own(t, takesIn()) * (room + 1) / room; int64(intake.MemLimit) < least {
		t.Errorf("it may have %d bytes, want at least %d", intake.MemLimit, least)
	}
}

// Whoever kills a worker waits longer than it takes to end.
func TestCompose_grace(t *testing.T) {
	t.Parallel()
	worker := loadCompose(t).Services["worker"]
	if worker.StopGracePeriod == nil {
		t.Fatal("the worker has no stop_grace_period")
	}
	least := settings.Default().Worker.ShutdownTimeout + 15*time.Second
	if got := time.Duration(*worker.StopGracePeriod); got < least {
		t.Errorf("the worker is killed after %v, want at least %v", got, least)
	}
}

// Each variable that a container gets means something to what runs in it.
func TestCompose_settings(t *testing.T) {
	t.Parallel()
	project := loadCompose(t)
	known := settingNames()
	for _, name := range []string{"worker", "intake", "web"} {
		for variable := range project.Services[name].Environment {
			if !known[variable] && !slices.Contains([]string{"CONTACT_ADDR"}, variable) {
				t.Errorf("%s: %s is not a setting", name, variable)
			}
		}
	}
	redis := strings.Join(project.Services["redis"].Command, " ")
	for _, want := range []string{"--appendonly yes", "--maxmemory-policy noeviction"} {
		if !strings.Contains(redis, want) {
			t.Errorf("redis does not run with %s: %s", want, redis)
		}
	}
}

// Only the queue's users reach Redis, and it reaches nothing.
func TestCompose_networks(t *testing.T) {
	t.Parallel()
	project := loadCompose(t)
	redis := project.Services["redis"]
	if len(redis.Networks) != 1 || !project.Networks["queue"].Internal || len(redis.Ports) != 0 {
		t.Errorf("redis is on %v with ports %v, want the internal network alone", redis.Networks, redis.Ports)
	}
	if _, ok := project.Services["mail"].Networks["queue"]; ok {
		t.Error("the mail catcher reaches Redis")
	}
}

func TestCompose_env(t *testing.T) {
	t.Parallel()
	project := loadCompose(t, "EMAIL_URL=smtps://u:p@relay.example.com", "EMAIL_HTTP_PASSWORD=secret", "REDIS_IMAGE=mirror.example.com/redis@sha256:0")
	worker := project.Services["worker"].Environment
	if got := *worker["EMAIL_URL"]; got != "smtps://u:p@relay.example.com" {
		t.Errorf("EMAIL_URL is %q", got)
	}
	if got := *worker["EMAIL_HTTP_PASSWORD"]; got != "secret" {
		t.Errorf("EMAIL_HTTP_PASSWORD is %q", got)
	}
	if got := project.Services["redis"].Image; got != "mirror.example.com/redis@sha256:0" {
		t.Errorf("the image of redis is %q", got)
	}
}

func settingNames() map[string]bool {
	names := map[string]bool{}
	for _, s := range settings.Describe(settings.Default()) {
		names[s.Name] = true
	}
	return names
}
