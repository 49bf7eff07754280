package settings

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func find(t *testing.T, all []Setting, name string) Setting {
	t.Helper()
	i := slices.IndexFunc(all, func(s Setting) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("%s is not described", name)
	}
	return all[i]
}

func TestDescribe(t *testing.T) {
	s, _ := load(t, map[string]string{
		"EMAIL_PORT": "587", "EMAIL_HOST_PASSWORD": "pw", "EMAIL_HOST": "localhost", "EMAIL_QUEUES": "a,b:2",
		"EMAIL_BATCH_TIMEOUT": "90s",
	})
	s.Message.Hostname = "web1.example.com"
	s.Worker.BatchTimeout = time.Minute + time.Second
	all := Describe(s)
	for _, want := range []Setting{
		{Group: "SMTP", Name: "EMAIL_PORT", Value: "587", Default: "25", Source: FromEnvironment},
		{Group: "SMTP", Name: "EMAIL_HOST", Value: "localhost", Default: "localhost", Source: FromEnvironment},
		{Group: "SMTP", Name: "EMAIL_HOST_PASSWORD", Value: "[redacted]", Source: FromEnvironment},
		{Group: "SMTP", Name: "EMAIL_HOST_USER", Source: FromDefault},
		{Group: "SMTP", Name: "EMAIL_TIMEOUT", Value: "1m", Default: "1m", Source: FromDefault},
		{Group: "Messages", Name: "EMAIL_HOSTNAME", Value: "web1.example.com", Source: FromProgram},
		{Group: "Worker", Name: "EMAIL_QUEUES", Value: "b:2,a:1", Default: "critical:6,default:3,bulk:1", Source: FromEnvironment},
		{Group: "Worker", Name: "EMAIL_MAX_AGE", Value: "120h", Default: "120h", Source: FromDefault},
		{Group: "Worker", Name: "EMAIL_BATCH_TIMEOUT", Value: "1m1s", Default: "2m", Source: FromProgram},
	} {
		got := find(t, all, want.Name)
		if got.Description == "" {
			t.Errorf("%s has no description", want.Name)
		}
		got.Description = ""
		if got != want {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
}

// TestDescribe_Complete holds what Describe, the checks and the README rely on.
func TestDescribe_Complete(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range fields(new(Default())) {
		desc, _ := f.tag("desc")
		if f.name == "" || desc == "" || strings.HasSuffix(desc, ".") || seen[f.name] {
			t.Errorf("%s.%s: name %q, description %q", f.group, f.def.Name, f.name, desc)
		}
		seen[f.name] = true
		if def, ok := f.tag("default"); f.show() != def {
			t.Errorf("%s: the default is written %q and shown %q (has one: %v)", f.name, def, f.show(), ok)
		}
	}
}

func TestMarkdown(t *testing.T) {
	text := Markdown()
	for _, line := range []string{
		"**SMTP**",
		"| name | default | meaning |",
		"| `EMAIL_PORT` | `25` | its port; most servers take mail on 587 with EMAIL_USE_TLS and 465 with EMAIL_USE_SSL (1 to 65535) |",
		"| `EMAIL_SUBJECT_PREFIX` | `[Django] ` | put before",
		"| `LOG_FORMAT` | `auto` | json for programs, console for people; auto is console on a terminal (auto, json, console) |",
		`| ` + "`ADMINS`" + ` |  | who gets mail to admins: addresses separated by commas, such as Ann \<ann@example.com>,`,
		"| `EMAIL_HOST_USER` |  | user name",
		"| `EMAIL_<NAME>_...` |  | of its own: `BACKEND`, `FILE_PATH`, `URL`, `MEMBERS`, `POLICY`, `HOST`, `PORT`, `HOST_USER`, `HOST_PASSWORD`, `USE_TLS`, `USE_SSL`, `SSL_CERTFILE`, ",
	} {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("no line begins with %s", line)
		}
	}
	if !strings.HasPrefix(text, "**Delivery**\n\n| name |") || strings.Count(text, "**") != 2*13 || strings.Count(text, "\n\n**") != 12 {
		t.Errorf("not thirteen tables with an empty line between them:\n%s", text)
	}
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "|") && strings.Count(line, "|") != 4 {
			t.Errorf("a row has not three columns: %s", line)
		}
	}
	if n := strings.Count(text, "\n| `"); n != len(fields(&Settings{}))+1 {
		t.Errorf("%d rows for %d settings", n, len(fields(&Settings{})))
	}
}

func TestNearest(t *testing.T) {
	known := []string{"smtp", "console", "filebased", "locmem", "dummy"}
	for _, tt := range []struct{ name, want string }{
		{"smpt", "smtp"}, {"smtps", "smtp"}, {"consle", "console"}, {"file", "filebased"}, {"mem", "locmem"},
		{"dumy", "dummy"}, {"sendgrid", ""}, {"", ""}, {"s", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Nearest(tt.name, known); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		name, a, b string
		want       int
	}{
		{"same", "HOST", "HOST", 0}, {"swapped", "HSOT", "HOST", 1}, {"missing", "HST", "HOST", 1},
		{"one more", "HOSST", "HOST", 1}, {"other", "HOAT", "HOST", 1}, {"nothing", "", "HOST", 4}, {"all", "abc", "xyz", 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := distance(tt.a, tt.b); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
			if got := distance(tt.b, tt.a); got != tt.want {
				t.Errorf("backwards: got %d, want %d", got, tt.want)
			}
		})
	}
}
