// Package repo holds the tests that look at the project as a whole: which package
// may import which, and whether README tells the truth.
package repo

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/mailpouch/mailpouch"

// root stands for the package at the module's root in the rules below.
const root = "mailpouch"

// arrows holds what a package may import: of this project, and from elsewhere ("" is
// the standard library alone). The first prefix that fits a package is its rule.
var arrows = []struct {
	pkg      string
	project  []string
	external []string
}{
	{"mailer/mailertest", []string{"mailer"}, nil},
	{"mailer/internal/jsoncodec", nil, []string{"github.com/go-json-experiment/json/"}},
	{"mailer", []string{"mailer", "internal/hostname", "internal/name"}, []string{"golang.org/x/"}},
	{"backends/smtp/internal/transport", nil, []string{"golang.org/x/sys/unix"}}, // it knows no messages
	{"backends/smtp/internal/auth", nil, []string{"golang.org/x/", "github.com/emersion/go-sasl"}},
	{"backends/smtp/oauth", []string{"internal/replacefile"}, []string{"golang.org/x/oauth2"}}, // it knows no SMTP
	{"backends/smtp", []string{"mailer", "internal/hostname", "internal/replyrule", "internal/tlsprobe", "backends/smtp/internal/"}, []string{"golang.org/x/", "github.com/emersion/go-sasl"}},
	{"backends/dkim", []string{"mailer", "internal/dkimkey", "internal/hostname"}, []string{"golang.org/x/net/"}},
	{"backends/", []string{"mailer", "internal/"}, nil},
	{"backends", []string{"settings", "mailer", "backends/", "internal/dkimkey", "internal/hostname", "internal/outgoing"}, []string{"golang.org/x/"}},
	{module, []string{"mailer", "settings", "backends", "tasks"}, []string{"github.com/redis/go-redis/v9"}}, // the root
	{"tasks/queuetest", []string{"mailer", "internal/deliverypolicy", "internal/handover", "internal/redact", "internal/wire"}, nil},
	{"tasks/internal/lookup", []string{"mailer", "internal/asynqbatch", "internal/find", "internal/history", "internal/pauses", "internal/redact", "internal/redisconn", "internal/wire"}, []string{"github.com/hibiken/asynq", "github.com/redis/go-redis/v9"}},
	{"tasks/internal/producer", []string{"mailer", "internal/asynqbatch", "internal/blobstore", "internal/handover", "internal/presence", "internal/queuewatch", "internal/redisconn", "internal/wire", "internal/events"}, []string{"github.com/hibiken/asynq", "github.com/redis/go-redis/v9", "github.com/rs/zerolog"}},
	{"tasks/internal/once", []string{"mailer", "internal/asynqbatch", "internal/find", "internal/handover", "internal/history", "internal/redisconn", "internal/wire", "internal/events"}, []string{"github.com/hibiken/asynq", "github.com/redis/go-redis/v9"}},
	{"tasks/internal/cancel", []string{"mailer", "internal/asynqbatch", "internal/find", "internal/handover", "internal/history", "internal/pauses", "internal/redisconn", "internal/wire", "tasks/internal/once", "tasks/internal/producer", "internal/events"}, []string{"github.com/redis/go-redis/v9"}},
	{"tasks/internal/letters", []string{"mailer", "internal/asynqbatch", "internal/find", "internal/handover", "internal/history", "internal/redact", "internal/redisconn", "internal/wire", "tasks/internal/cancel", "tasks/internal/once", "tasks/internal/producer", "internal/events"}, []string{"github.com/hibiken/asynq", "github.com/redis/go-redis/v9"}},
	{"tasks/internal/weight", []string{"mailer", "internal/wire"}, []string{"golang.org/x/sync/"}},
	{"tasks/internal/isolation", []string{"internal/redisconn", "internal/wire"}, []string{"github.com/redis/go-redis/v9", "github.com/rs/zerolog", "golang.org/x/sync/"}},
	{"tasks", []string{"mailer", "tasks/internal/", "internal/events", "internal/find", "internal/history", "internal/blobstore", "internal/deliverypolicy", "internal/handover", "internal/redact", "internal/asynqbatch", "internal/batcher", "internal/redisconn", "internal/sweep", "internal/wire", "internal/outgoing", "internal/pauses", "internal/presence", "internal/queuewatch", "internal/rate"}, []string{"github.com/hibiken/asynq", "github.com/redis/go-redis/v9", "github.com/rs/zerolog"}},
	{"adminlog", []string{"mailer"}, []string{"github.com/rs/zerolog"}},
	{"tracing", []string{"mailer", "backends/smtp"}, []string{"go.opentelemetry.io/otel"}},
	{"internal/asynqbatch", []string{"internal/batcher", "internal/events", "internal/history", "internal/wire"}, []string{"github.com/hibiken/asynq", "github.com/redis/go-redis/v9", "github.com/rs/zerolog", "golang.org/x/sys/unix"}},
	{"internal/batcher", nil, nil},
	{"internal/blobstore", []string{"internal/redisconn"}, []string{"github.com/redis/go-redis/v9", "github.com/rs/zerolog"}},
	{"internal/history", []string{"mailer", "internal/packed", "internal/redact", "internal/redisconn", "internal/wire"}, []string{"github.com/redis/go-redis/v9", "github.com/rs/zerolog"}},
	{"internal/events", []string{"mailer", "internal/handover", "internal/name", "internal/packed", "internal/redisconn", "internal/wire"}, []string{"github.com/redis/go-redis/v9", "github.com/rs/zerolog"}},
	{"internal/find", []string{"internal/asynqbatch", "internal/redact", "internal/redisconn", "internal/wire"}, []string{"github.com/redis/go-redis/v9"}},
	{"internal/redisconn", []string{"mailer", "internal/tlsprobe"}, []string{"github.com/redis/go-redis/v9"}},
	{"internal/pauses", []string{"internal/asynqbatch", "internal/name", "internal/redisconn", "internal/wire"}, []string{"github.com/redis/go-redis/v9"}},
	{"internal/presence", []string{"internal/redisconn", "internal/wire"}, []string{"github.com/redis/go-redis/v9"}},
	{"internal/queuewatch", []string{"internal/wire"}, []string{"github.com/redis/go-redis/v9"}},
	{"internal/queuestats", []string{"internal/asynqbatch", "internal/presence", "internal/redact", "internal/redisconn", "internal/wire"}, []string{"github.com/hibiken/asynq", "github.com/redis/go-redis/v9"}},
	{"internal/sweep", []string{"internal/asynqbatch", "internal/events", "internal/redact", "internal/redisconn", "internal/wire"}, []string{"github.com/redis/go-redis/v9", "github.com/rs/zerolog"}},
	{"internal/redact", []string{"mailer"}, nil},
	{"internal/packed", nil, nil},
	{"internal/dkimkey", nil, nil},
	{"internal/hostname", nil, nil},
	{"internal/name", nil, nil},
	{"internal/deliverypolicy", []string{"mailer"}, nil},
	{"internal/handover", []string{"mailer", "internal/wire"}, nil},
	{"internal/ownhost", nil, nil},
	{"internal/outgoing", []string{"mailer"}, nil},
	{"internal/tlsprobe", nil, nil},
	{"internal/publicaddr", nil, nil},
	{"internal/webhook/target", []string{"internal/publicaddr"}, nil},
	{"internal/webhook", []string{"internal/events", "internal/publicaddr", "internal/redact", "internal/webhook/target"}, []string{"github.com/redis/go-redis/v9", "github.com/rs/zerolog"}},
	{"internal/replyrule", nil, nil},
	{"internal/replacefile", nil, nil},
	{"internal/ratelimit", []string{"internal/rate", "internal/wire"}, []string{"github.com/redis/go-redis/v9"}},
	{"internal/rate", nil, nil},
	{"internal/wire", []string{"mailer", "internal/name"}, []string{"github.com/klauspost/compress/zstd"}},
	{"internal/pages", []string{"mailer", "settings", "backends/smtp", "tasks", "intake/", "internal/webhook", "internal/asynqbatch", "internal/redact", "internal/redisconn", "internal/ownhost", "internal/presence", "internal/queuestats", "internal/wire"},
		[]string{"github.com/hibiken/asynqmon", "github.com/redis/go-redis/v9", "github.com/rs/zerolog"}},
	{"internal/metrics", []string{"mailer", "backends/dkim", "backends/smtp", "tasks", "internal/events", "internal/pauses", "internal/queuestats", "internal/redisconn", "internal/webhook", "internal/wire", "intake/"}, []string{"github.com/prometheus/client_golang/", "github.com/redis/go-redis/v9"}},
	{"settings", []string{"internal/dkimkey", "internal/hostname", "internal/name", "internal/rate", "internal/replyrule", "internal/webhook/target"}, []string{"github.com/kelseyhightower/envconfig"}},
	{"intake/smtpd", []string{"intake", "mailer", "internal/hostname", "internal/redact"}, []string{"github.com/rs/zerolog"}}, // Redis is the intake's
	{"intake/httpapi", []string{"mailer", "tasks", "intake", "internal/redact"}, []string{"github.com/go-json-experiment/json", "github.com/rs/zerolog"}},
	{"intake", []string{"mailer", "tasks", "internal/handover", "internal/hostname", "internal/name", "internal/rate", "internal/ratelimit", "internal/redisconn", "internal/wire"}, []string{"github.com/redis/go-redis/v9", "golang.org/x/net/idna", "golang.org/x/sync/"}},
	{"examples/contact", []string{root, "mailer", "settings", "backends", "tasks", "examples/contact/site"}, nil}, // what everybody may import
	{"examples/failover", []string{"settings", "backends"}, nil},
	{"examples/intake", []string{"tasks"}, []string{"github.com/redis/go-redis/v9"}},
	{"examples/minimal", []string{root, "mailer"}, nil},
	{"examples/newsletter", []string{root, "mailer"}, nil},
	{"examples/webhook/worker", []string{"mailer", "settings", "backends", "cmd/worker/workercli", "examples/webhook"}, nil},
	{"examples/webhook", []string{"mailer"}, nil},
	{"examples/jsonapi/worker", []string{"mailer", "settings", "backends", "cmd/worker/workercli", "examples/jsonapi"}, nil},
	{"examples/jsonapi", []string{"mailer"}, nil},
	{"examples/hooks/worker", []string{"backends", "cmd/worker/workercli", "examples/hooks", "tasks"}, nil},
	{"examples/hooks", []string{"mailer", "tasks"}, nil},
	{"examples/web", []string{root, "mailer", "settings", "backends", "tasks", "internal/", "cmd/worker/workercli", "examples/contact/site"}, nil},
	{"internal/intakeconfig", []string{"settings", "intake/", "internal/hostname", "internal/webhook/", "internal/webhook"}, nil},
	{"internal/", []string{"mailer", "settings", "backends", "tasks", "internal/"}, []string{""}},
	{"cmd/", []string{root, "mailer", "settings", "backends", "tasks", "tracing", "intake", "internal/", "cmd/worker/workercli"}, []string{""}},
}

func TestArrows(t *testing.T) {
	t.Parallel()
	for _, line := range goList(t, "{{.ImportPath}} {{join .Imports \" \"}}", module+"/...") {
		pkg, imports, _ := strings.Cut(line, " ")
		name := strings.TrimPrefix(pkg, module+"/")
		i := slices.IndexFunc(arrows, func(a struct {
			pkg               string
			project, external []string
		}) bool {
			return strings.HasPrefix(name, a.pkg)
		})
		if i < 0 {
			t.Errorf("%s has no rule here: add a rule for it", pkg)
			continue
		}
		for _, imported := range strings.Fields(imports) {
			if !allowed(imported, arrows[i].project, arrows[i].external) {
				t.Errorf("%s imports %s, which its arrows do not allow", name, imported)
			}
		}
	}
}

func allowed(imported string, project, external []string) bool {
	hasPrefix := func(prefixes []string, path string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(path, p) })
	}
	if imported == module {
		return slices.Contains(project, root)
	}
	if own, ok := strings.CutPrefix(imported, module+"/"); ok {
		return hasPrefix(project, own)
	}
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
		return true // the standard library
	}
	return hasPrefix(external, imported)
}

// A program that only wants to send over SMTP does not link Redis, nor does the test of one that hands its mail over.
func TestNoRedisLinked(t *testing.T) {
	t.Parallel()
	for _, pkg := range []string{"/mailer/...", "/backends/...", "/tasks/queuetest"} {
		for _, dep := range goList(t, "{{.ImportPath}}", "-deps", module+pkg) {
			if strings.Contains(dep, "redis") || strings.Contains(dep, "asynq") {
				t.Errorf("%s links %s", pkg, dep)
			}
		}
	}
}

func goList(t *testing.T, format string, args ...string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", append([]string{"list", "-f", format}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// A program that only hands mail over links no servers for other programs, nor what posts events.
func TestNoIntakeLinked(t *testing.T) {
	t.Parallel()
	for _, pkg := range []string{"", "/mailer/...", "/backends/...", "/tasks/...", "/cmd/enqueue"} {
		for _, dep := range goList(t, "{{.ImportPath}}", "-deps", module+pkg) {
			if strings.HasPrefix(dep, module+"/intake") || dep == module+"/internal/webhook" || dep == module+"/internal/intakeconfig" {
				t.Errorf("%s links %s", module+pkg, dep)
			}
		}
	}
}
