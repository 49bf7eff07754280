package settings

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// others are values for the settings that each mailer has, by what follows EMAIL_ in
// the default mailer's variable. None is a default, and they go together.
func others(t *testing.T) map[string]string {
	t.Helper()
	pem := filepath.Join(t.TempDir(), "pem")
	if err := os.WriteFile(pem, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"BACKEND": "filebased", "FILE_PATH": "/var/mail", "HOST": "mx1,mx2", "PORT": "465", "HOST_USER": "u", "HOST_PASSWORD": "pw",
		"USE_SSL": "true", "SSL_CERTFILE": pem, "SSL_KEYFILE": pem, "SSL_CAFILE": pem, "SSL_SERVER_NAME": "relay",
		"ALLOW_INSECURE_AUTH": "true", "AUTH_MECHANISMS": "LOGIN", "TEMPORARY_REPLIES": "550 5.1.90", "ALLOWED_RECIPIENTS": ".example.com", "OVERRIDE_RECIPIENTS": "qa@example.com", "TIMEOUT": "2", "DATA_TIMEOUT": "11m", "PIPELINING": "OFF", "CHUNKING": "auto",
		"CONNECTION_IDLE": "30s", "CONNECTION_MAX_MESSAGES": "7", "CONNECTION_MAX_BYTES": "8", "CONNECTION_MAX_AGE": "9m", "CONNECTIONS": "5", "CONNECTIONS_MAX": "15",
		"MEMBERS": "b:2", "POLICY": "weighted",
		"RATE": "14/s", "RATE_RECIPIENTS": "30/m", "RATE_CONNECTIONS": "12", "RATE_DOMAINS": "gmail.com:20/s",
		"DKIM_DOMAIN": "example.com", "DKIM_SELECTOR": "one", "DKIM_KEY_FILE": ed25519File(t),
	}
}

// mine lists the settings that are a mailer's own. It is written out here because a
// mistake in it sends a password to somebody else's server.
var mine = []string{
	"BACKEND", "FILE_PATH", "HOST", "PORT", "HOST_USER", "HOST_PASSWORD", "USE_SSL", "SSL_CERTFILE", "SSL_KEYFILE", "SSL_CAFILE",
	"SSL_SERVER_NAME", "AUTH_MECHANISMS", "TEMPORARY_REPLIES", "ALLOW_INSECURE_AUTH", "MEMBERS", "POLICY", "RATE", "RATE_RECIPIENTS", "RATE_CONNECTIONS", "RATE_DOMAINS",
	"OAUTH", "OAUTH_TENANT", "OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_REFRESH_TOKEN_FILE", "OAUTH_KEY_FILE", "OAUTH_TOKEN_URL", "OAUTH_DEVICE_URL", "OAUTH_SCOPE",
}

// values returns what a mailer has for each of the settings, by the end of its variable.
func values(s Settings) map[string]string {
	all := map[string]string{}
	for _, f := range mailerFields(&s, s.Using) {
		all[strings.TrimPrefix(f.key, prefix)] = f.show()
	}
	return all
}

func mustNamed(t *testing.T, s Settings, name string) Settings {
	t.Helper()
	n, err := s.Named(name)
	if err != nil {
		t.Fatal(err)
	}
	if n.Using != name {
		t.Errorf("Using is %q", n.Using)
	}
	return n
}

func TestNamed_Own(t *testing.T) {
	vars := map[string]string{"EMAIL_MAILERS": "eu-west,b"}
	for end, value := range others(t) {
		vars["EMAIL_EU_WEST_"+end] = value
	}
	vars["EMAIL_B_HOST"] = "b"
	s, warnings := load(t, vars)
	slices.Sort(warnings)
	for i, want := range []string{
		"EMAIL_EU_WEST_ALLOWED_RECIPIENTS: ",
		"EMAIL_EU_WEST_CONNECTIONS_MAX: has no effect, since EMAIL_EU_WEST_CONNECTIONS is set",
		"EMAIL_EU_WEST_MEMBERS: has no effect, since EMAIL_EU_WEST_BACKEND is not failover",
		"EMAIL_EU_WEST_OVERRIDE_RECIPIENTS: ",
		"EMAIL_EU_WEST_POLICY: has no effect, since EMAIL_EU_WEST_BACKEND is not failover",
	} {
		if len(warnings) != 5 || !strings.HasPrefix(warnings[i], want) {
			t.Fatalf("warnings: %q, want %s", warnings, want)
		}
	}
	if len(warnings) != 5 {
		t.Errorf("warnings: %q", warnings)
	}
	unset := values(Default())
	got := values(mustNamed(t, s, "eu-west"))
	for end := range others(t) {
		if got[end] == unset[end] {
			t.Errorf("EMAIL_EU_WEST_%s has no effect", end)
		}
		delete(got, end)
	}
	delete(got, "USE_TLS")                                                                    // it excludes USE_SSL
	delete(got, "URL")                                                                        // it excludes most
	maps.DeleteFunc(got, func(end, _ string) bool { return strings.HasPrefix(end, "OAUTH") }) // they exclude HOST_PASSWORD
	if len(got) > 0 {
		t.Errorf("not tested: %v", got)
	}
	// Nobody else has any of it.
	unset["HOST"] = "b"
	if got := values(mustNamed(t, s, "b")); !reflect.DeepEqual(got, unset) {
		t.Errorf("b has %v\nwant  %v", got, unset)
	}
	unset["HOST"] = "localhost"
	if got := values(s); !reflect.DeepEqual(got, unset) {
		t.Errorf("the default mailer has %v\nwant %v", got, unset)
	}
}

func TestNamed_Shared(t *testing.T) {
	vars := map[string]string{"EMAIL_MAILERS": "m", "EMAIL_M_HOST": "m"}
	for end, value := range others(t) {
		vars[prefix+end] = value
	}
	s, _ := load(t, vars)
	unset, def := values(Default()), values(s)
	unset["HOST"] = "m"
	for end, got := range values(mustNamed(t, s, "m")) {
		want := def[end]
		if slices.Contains(mine, end) {
			want = unset[end]
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", end, got, want)
		}
	}
	// What is not a mailer's at all stays.
	n := mustNamed(t, s, "m")
	if n.Queue != s.Queue || n.Log != s.Log || !reflect.DeepEqual(n.Message, s.Message) || n.Worker.BatchSize != s.Worker.BatchSize {
		t.Errorf("got %+v\nwant %+v", n, s)
	}
}

// The settings from which Named is called are those that a program goes on with: what
// it changed counts.
func TestNamed_Changed(t *testing.T) {
	s, _ := load(t, map[string]string{"EMAIL_MAILERS": "m", "EMAIL_M_HOST": "m", "EMAIL_M_CONNECTIONS": "2"})
	s.Message.Hostname, s.SMTP.DataTimeout, s.SMTP.User, s.Worker.Connections = "web1", 12*time.Minute, "u", 9
	n := mustNamed(t, s, "m")
	if n.Message.Hostname != "web1" || n.SMTP.DataTimeout != 12*time.Minute || n.SMTP.User != "" || n.Worker.Connections != 2 {
		t.Errorf("got %+v", n)
	}
	n.SMTP.Hosts[0] = "x"
	if again := mustNamed(t, s, "m"); again.SMTP.Hosts[0] != "m" {
		t.Error("a change to one mailer's settings is seen in another's")
	}
}

func TestNamed_Backends(t *testing.T) {
	s, _ := load(t, map[string]string{"EMAIL_BACKEND": "queue", "EMAIL_QUEUE_BACKEND": "dummy", "EMAIL_MAILERS": "a,b,c",
		"EMAIL_A_HOST": "mx", "EMAIL_B_BACKEND": "django.core.mail.backends.console.EmailBackend", "EMAIL_C_URL": "filebased:///c"})
	for name, want := range map[string]string{"a": "smtp", "b": "console", "c": "filebased"} {
		if n := mustNamed(t, s, name); n.Delivery.Backend != want || n.Worker.Backend != want {
			t.Errorf("%s: got %s and %s, want %s", name, n.Delivery.Backend, n.Worker.Backend, want)
		}
	}
	if c := mustNamed(t, s, "c"); c.Delivery.FilePath != "/c" {
		t.Errorf("the URL's path is %q", c.Delivery.FilePath)
	}
}

func TestNamed_Ports(t *testing.T) {
	for _, tt := range []struct {
		name string
		vars map[string]string
		want int
	}{
		{"plain", nil, 25},
		{"STARTTLS", map[string]string{"EMAIL_M_USE_TLS": "true"}, 587},
		{"TLS", map[string]string{"EMAIL_M_USE_SSL": "true"}, 465},
		{"set", map[string]string{"EMAIL_M_USE_SSL": "true", "EMAIL_M_PORT": "8465"}, 8465},
		{"the default mailer's", map[string]string{"EMAIL_PORT": "2525", "EMAIL_USE_TLS": "true"}, 25},
	} {
		t.Run(tt.name, func(t *testing.T) {
			vars := map[string]string{"EMAIL_MAILERS": "m", "EMAIL_M_HOST": "mx"}
			for name, value := range tt.vars {
				vars[name] = value
			}
			s, warnings := load(t, vars)
			if got := mustNamed(t, s, "m").SMTP.Port; got != tt.want || len(warnings) > 0 {
				t.Errorf("got %d, want %d, warnings %q", got, tt.want, warnings)
			}
		})
	}
	s, _ := load(t, map[string]string{"EMAIL_MAILERS": "m", "EMAIL_M_URL": "smtp+starttls://u:pw@mx"})
	if c := mustNamed(t, s, "m").SMTP; c.Port != 587 || !c.UseTLS || c.User != "u" || c.Password.Reveal() != "pw" || c.Hosts[0] != "mx" {
		t.Errorf("the URL gives %+v", c)
	}
}

func TestNamed_Default(t *testing.T) {
	s, _ := load(t, map[string]string{"EMAIL_MAILERS": "m", "EMAIL_M_HOST": "mx", "EMAIL_HOST": "default"})
	for _, name := range []string{"", DefaultMailer} {
		n, err := s.Named(name)
		if err != nil || !reflect.DeepEqual(n, s) {
			t.Errorf("%q: got %+v, %v", name, n, err)
		}
	}
	s.Using = "x"
	if n, err := s.Named(""); err != nil || n.Using != "" {
		t.Errorf("got Using %q, %v", n.Using, err)
	}
}

func TestMailers(t *testing.T) {
	s, _ := load(t, map[string]string{"EMAIL_MAILERS": " zeta , alpha,eu-west,b_2 ", "EMAIL_BACKEND": "queue"})
	got := s.Mailers()
	if want := []string{"zeta", "alpha", "eu-west", "b_2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	got[0] = "x"
	if s.Mailers()[0] != "zeta" {
		t.Error("the list is not the caller's own")
	}
	if s, _ := load(t, nil); s.Mailers() != nil {
		t.Errorf("without EMAIL_MAILERS there are %q", s.Mailers())
	}
}

func TestNamed_Unknown(t *testing.T) {
	for _, tt := range []struct{ name, mailers, using, want string }{
		{"like one", "marketing,alerts", "markting", `settings: the mailer "markting" is not configured; did you mean marketing? (EMAIL_MAILERS has marketing, alerts)`},
		{"like none", "marketing,alerts", "bulk", `settings: the mailer "bulk" is not configured (EMAIL_MAILERS has marketing, alerts)`},
		{"none there", "", "bulk", `settings: the mailer "bulk" is not configured: EMAIL_MAILERS names none`},
		{"capitals", "alerts", "Alerts", `settings: the mailer "Alerts" is not configured; did you mean alerts? (`},
		{"line end", "alerts", "a\r\nb", `settings: the mailer "a\r\nb" is not configured (`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := load(t, map[string]string{"EMAIL_BACKEND": "queue", "EMAIL_MAILERS": tt.mailers})
			n, err := s.Named(tt.using)
			var unknown *UnknownMailerError
			if !errors.As(err, &unknown) || unknown.Name != tt.using || !slices.Equal(unknown.Known, s.Mailers()) {
				t.Fatalf("got %v", err)
			}
			if !strings.HasPrefix(err.Error(), tt.want) || !reflect.DeepEqual(n, Settings{}) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

// A mailer of which a program knows the name alone must not send to localhost.
func TestNamed_NameOnly(t *testing.T) {
	s, warnings := load(t, map[string]string{"EMAIL_BACKEND": "queue", "EMAIL_MAILERS": "m"})
	_, err := s.Named("m")
	var problems Problems
	if !errors.As(err, &problems) || problems[0].Name != "EMAIL_M_HOST" || len(warnings) > 0 {
		t.Errorf("got %v, warnings %q", err, warnings)
	}
	s = Default()
	s.Delivery.Mailers = Names{"m"}
	if _, err := s.Named("m"); !errors.As(err, &problems) {
		t.Errorf("a name that the program put in: %v", err)
	}
}

func TestLoad_MailerProblems(t *testing.T) {
	dir := t.TempDir()
	with := func(vars map[string]string) map[string]string {
		all := map[string]string{"EMAIL_MAILERS": "m,eu-west", "EMAIL_M_HOST": "mx", "EMAIL_EU_WEST_HOST": "mx"}
		for name, value := range vars {
			all[name] = value
		}
		return all
	}
	for _, tt := range []struct {
		name string
		vars map[string]string
		want []string
	}{
		{"no host", with(map[string]string{"EMAIL_M_HOST": ""}), []string{"EMAIL_M_HOST: the smtp backend needs a host here, or EMAIL_M_URL"}},
		{"bad host", with(map[string]string{"EMAIL_M_HOST": "mx:25"}), []string{`EMAIL_M_HOST: "mx:25" is not`}},
		{"bad port", with(map[string]string{"EMAIL_M_PORT": "0", "EMAIL_EU_WEST_PORT": "x"}),
			[]string{`EMAIL_EU_WEST_PORT: "x" is not a whole number`, "EMAIL_M_PORT: 0 is out of range"}},
		{"not one of", with(map[string]string{"EMAIL_M_PIPELINING": "on"}), []string{`EMAIL_M_PIPELINING: "on" is not allowed`}},
		{"control character", with(map[string]string{"EMAIL_M_HOST_USER": "u\n", "EMAIL_M_HOST_PASSWORD": "hunter2\n"}),
			[]string{`EMAIL_M_HOST_USER: has a line end at its end`, "EMAIL_M_HOST_PASSWORD: has a line end at its end"}},
		{"too many connections", with(map[string]string{"EMAIL_M_CONNECTIONS": "1001"}), []string{"EMAIL_M_CONNECTIONS: 1001 is out of range"}},
		{"TLS and SSL", with(map[string]string{"EMAIL_M_USE_TLS": "true", "EMAIL_M_USE_SSL": "true", "EMAIL_M_PORT": "465"}),
			[]string{"EMAIL_M_USE_TLS: excludes EMAIL_M_USE_SSL: ... EMAIL_M_USE_TLS on port 587 or EMAIL_M_USE_SSL on port 465"}},
		{"one has TLS, another SSL", with(map[string]string{"EMAIL_USE_TLS": "true", "EMAIL_M_USE_SSL": "true"}), nil},
		{"certificate without key", with(map[string]string{"EMAIL_M_SSL_CERTFILE": os.Args[0], "EMAIL_SSL_KEYFILE": os.Args[0]}),
			[]string{"EMAIL_SSL_CERTFILE: the key in EMAIL_SSL_KEYFILE", "EMAIL_M_SSL_KEYFILE: the certificate in EMAIL_M_SSL_CERTFILE"}},
		{"key without certificate", with(map[string]string{"EMAIL_M_SSL_KEYFILE": os.Args[0]}), []string{"EMAIL_M_SSL_CERTFILE: the key in EMAIL_M_SSL_KEYFILE"}},
		{"no such file", with(map[string]string{"EMAIL_M_SSL_CAFILE": dir}), []string{"EMAIL_M_SSL_CAFILE: cannot be read"}},
		{"files without a directory", with(map[string]string{"EMAIL_M_BACKEND": "filebased", "EMAIL_FILE_PATH": dir}), []string{"EMAIL_M_FILE_PATH: the filebased"}},
		{"a loop", with(map[string]string{"EMAIL_M_BACKEND": "queue"}), []string{"EMAIL_M_BACKEND: a worker cannot deliver into the queue"}},
		{"command and batch", with(map[string]string{"EMAIL_M_TIMEOUT": "2m"}), []string{"EMAIL_BATCH_TIMEOUT: 2m has to be longer than EMAIL_M_TIMEOUT, which is 2m"}},
		{"command and data", with(map[string]string{"EMAIL_M_DATA_TIMEOUT": "59s"}), []string{"EMAIL_M_DATA_TIMEOUT: 59s cannot be shorter than EMAIL_TIMEOUT,"}},
		{"command and shared data", with(map[string]string{"EMAIL_M_TIMEOUT": "11m", "EMAIL_BATCH_TIMEOUT": "12m", "EMAIL_SHUTDOWN_TIMEOUT": "13m", "EMAIL_TASK_TIMEOUT": "1h"}),
			[]string{"EMAIL_DATA_TIMEOUT: 10m cannot be shorter than EMAIL_M_TIMEOUT, which is 11m"}},
		{"data and task", with(map[string]string{"EMAIL_M_DATA_TIMEOUT": "30m"}), []string{"EMAIL_TASK_TIMEOUT: 30m has to be at least EMAIL_M_DATA_TIMEOUT plus twice"}},
		{"what is wrong with the default mailer's is said once", with(map[string]string{"EMAIL_TIMEOUT": "2m", "EMAIL_PIPELINING": "on", "EMAIL_CONNECTIONS": "0"}),
			[]string{"EMAIL_PIPELINING: ", "EMAIL_CONNECTIONS: ", "EMAIL_BATCH_TIMEOUT: 2m has to be longer than EMAIL_TIMEOUT"}},
		{"only the names", map[string]string{"EMAIL_MAILERS": "m,eu-west", "EMAIL_BACKEND": "queue"}, nil},
		{"files on the worker only", with(map[string]string{"EMAIL_BACKEND": "queue", "EMAIL_M_SSL_CAFILE": dir, "EMAIL_M_HOST": ""}), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := lines(t, tt.vars)
			compareLines(t, sorted(got, tt.want), tt.want)
			for _, line := range got {
				if strings.Contains(line, password) {
					t.Errorf("shows the password: %s", line)
				}
			}
		})
	}
}

// sorted puts the lines whose order is that of the mailers into that of the test.
func sorted(got, want []string) []string {
	place := func(line string) int {
		name, _, _ := strings.Cut(line, ":")
		return slices.IndexFunc(want, func(w string) bool { return strings.HasPrefix(w, name+":") })
	}
	return slices.SortedStableFunc(slices.Values(got), func(a, b string) int { return place(a) - place(b) })
}

func TestLoad_MailerNames(t *testing.T) {
	for _, tt := range []struct{ name, mailers, want string }{
		{"capitals", "Marketing", `"Marketing" is not a mailer's name; use lower-case`},
		{"dot", "a.b", `"a.b" is not`},
		{"blank", "a b", `"a b" is not`},
		{"hyphen in front", "-a", `"-a" is not`},
		{"underscore at the end", "a_", `"a_" is not`},
		{"outside ASCII", "bücher", `"bücher" is not`},
		{"line end", "a\nb", `"a\nb" is not`},
		{"comma at the end", "a,", `"" is not`},
		{"default", "default", `"default" is what the mailer without a name is called`},
		{"twice", "a,a", `"a" is named twice`},
		{"one variable", "a-b,a_b", `"a-b" and "a_b" cannot be told apart: both would read EMAIL_A_B_BACKEND`},
		{"one variable of many", "a,a-data", `"a" and "a-data" cannot be told apart: both would read EMAIL_A_DATA_TIMEOUT`},
		{"the other way round", "a-data,a", `"a-data" and "a" cannot be told apart: both would read EMAIL_A_DATA_TIMEOUT`},
		{"queue", "queue", `"queue" cannot be a mailer's name, because EMAIL_QUEUE_`},
		{"host", "host", `because EMAIL_HOST_USER is`},
		{"use", "use", `because EMAIL_USE_`},
		{"data", "data", `because EMAIL_DATA_TIMEOUT is`},
		{"two words", "connection-max", `because EMAIL_CONNECTION_MAX_MESSAGES is`},
		{"ssl", "ssl", `because EMAIL_SSL_CERTFILE is`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := lines(t, map[string]string{"EMAIL_MAILERS": tt.mailers, "EMAIL_A_HOST": "mx", "EMAIL_A_B_HOST": "mx", "EMAIL_A_DATA_HOST": "mx"})
			if len(got) != 1 || !strings.HasPrefix(got[0], "EMAIL_MAILERS: ") || !strings.Contains(got[0], tt.want) {
				t.Errorf("got  %q\nwant %s", got, tt.want)
			}
		})
	}
	got := lines(t, map[string]string{"EMAIL_MAILERS": "A,queue,m", "EMAIL_M_PORT": "x", "EMAIL_M_HOST": "mx"})
	compareLines(t, got, []string{`EMAIL_M_PORT: "x"`, `EMAIL_MAILERS: "A"`, `EMAIL_MAILERS: "queue"`})
	load(t, map[string]string{"EMAIL_MAILERS": "a,ab,a-b,0,x2_3-y,url,port,mailers", "EMAIL_BACKEND": "queue"})
}

// No name that is allowed has a variable that means something else already.
func TestMailerNames_Clash(t *testing.T) {
	known := map[string]bool{}
	for _, f := range fields(&Settings{}) {
		known[f.name] = true
	}
	tried := 0
	for name := range known {
		parts := strings.Split(strings.ToLower(strings.TrimPrefix(name, prefix)), "_")
		for i := 1; i < len(parts); i++ {
			mailer := strings.Join(parts[:i], "-")
			if checkName(mailer, nil) != nil {
				tried++
				continue
			}
			for _, f := range mailerFields(&Settings{}, mailer) {
				if known[f.name] {
					t.Errorf("the mailer %q would read %s", mailer, f.name)
				}
			}
		}
	}
	if tried < 10 {
		t.Errorf("%d names refused, want more", tried)
	}
}

func TestLoad_MailerWarnings(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.pem")
	with := func(vars map[string]string) map[string]string {
		all := map[string]string{"EMAIL_MAILERS": "marketing,eu-west", "EMAIL_MARKETING_HOST": "mx", "EMAIL_EU_WEST_HOST": "mx"}
		for name, value := range vars {
			all[name] = value
		}
		return all
	}
	for _, tt := range []struct {
		name string
		vars map[string]string
		want []string
	}{
		{"none", with(nil), nil},
		{"letters swapped", with(map[string]string{"EMAIL_MARKETING_HSOT": "x", "EMAIL_EU_WEST_PROT": "x"}),
			[]string{"EMAIL_EU_WEST_PROT: ... did you mean EMAIL_EU_WEST_PORT?", "EMAIL_MARKETING_HSOT: is not a setting ... did you mean EMAIL_MARKETING_HOST?"}},
		{"end of a name", with(map[string]string{"EMAIL_EU_WEST_PASSWORD": "x"}), []string{"EMAIL_EU_WEST_PASSWORD: ... EMAIL_EU_WEST_HOST_PASSWORD?"}},
		{"nothing like it", with(map[string]string{"EMAIL_MARKETING_XYZZY": "x", "EMAIL_MARKETING_MAX_RETRY": "3"}),
			[]string{"EMAIL_MARKETING_MAX_RETRY: is not a setting and has no effect$", "EMAIL_MARKETING_XYZZY: is not a setting and has no effect$"}},
		{"the mailer's name", with(map[string]string{"EMAIL_MARKETNIG_HOST": "x"}), []string{"EMAIL_MARKETNIG_HOST: ... did you mean EMAIL_MARKETING_HOST?"}},
		{"a mailer that is not named", map[string]string{"EMAIL_NEWS_HOST": "x", "EMAIL_EU_WEST_HOST_USER": "x", "EMAIL_NEWS_CONNECTION_IDLE": "x"},
			[]string{"EMAIL_EU_WEST_HOST_USER: ... did you mean EMAIL_HOST_USER, or is eu-west missing in EMAIL_MAILERS?",
				"EMAIL_NEWS_CONNECTION_IDLE: ... did you mean EMAIL_CONNECTION_IDLE, or is news", "EMAIL_NEWS_HOST: ... did you mean EMAIL_HOST, or is news missing"}},
		{"user without password", with(map[string]string{"EMAIL_MARKETING_HOST_USER": "u", "EMAIL_HOST_PASSWORD": "p", "EMAIL_HOST_USER": "u"}),
			[]string{"EMAIL_MARKETING_HOST_USER: there is no login without EMAIL_MARKETING_HOST_PASSWORD"}},
		{"password in clear text", with(map[string]string{"EMAIL_MARKETING_HOST_USER": "u", "EMAIL_MARKETING_HOST_PASSWORD": "p", "EMAIL_ALLOW_INSECURE_AUTH": "true"}),
			[]string{"EMAIL_MARKETING_HOST_PASSWORD: the password is not sent to mx without TLS; set EMAIL_MARKETING_USE_TLS or EMAIL_MARKETING_USE_SSL, or set EMAIL_MARKETING_ALLOW_INSECURE_AUTH"}},
		{"SSL on 587", with(map[string]string{"EMAIL_MARKETING_USE_SSL": "true", "EMAIL_MARKETING_PORT": "587"}), []string{"EMAIL_MARKETING_PORT: 587 is rarely the port for EMAIL_MARKETING_USE_SSL"}},
		{"a name to verify and no TLS", with(map[string]string{"EMAIL_MARKETING_SSL_SERVER_NAME": "mx", "EMAIL_USE_TLS": "true"}),
			[]string{"EMAIL_MARKETING_SSL_SERVER_NAME: has no effect without EMAIL_MARKETING_USE_TLS or EMAIL_MARKETING_USE_SSL"}},
		{"what only the worker has", with(map[string]string{"EMAIL_BACKEND": "queue", "EMAIL_MARKETING_HOST": "", "EMAIL_MARKETING_USE_TLS": "true", "EMAIL_MARKETING_SSL_CAFILE": missing}),
			[]string{"EMAIL_MARKETING_SSL_CAFILE: cannot be read", "EMAIL_MARKETING_HOST: the smtp backend needs a host"}},
		{"a default mailer that nobody uses", with(map[string]string{"EMAIL_BACKEND": "dummy"}), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, warnings := load(t, tt.vars)
			compareLines(t, warnings, tt.want)
		})
	}
}

// The variables of a mailer with a bad name are not news.
func TestLoad_BadNameAndWarnings(t *testing.T) {
	setenv(t, map[string]string{"EMAIL_MAILERS": "News", "EMAIL_NEWS_HOST": "mx"})
	_, warnings, err := Load()
	if err == nil || len(warnings) > 0 {
		t.Errorf("got %v, warnings %q", err, warnings)
	}
}

// A number of connections that is set is kept, for the mailer or for all; otherwise they may become more.
func TestSettings_Connections(t *testing.T) {
	for _, tt := range []struct {
		name string
		vars map[string]string
		want [4]int // at first and at most: of the default mailer, of m
	}{
		{"nothing is set", nil, [4]int{4, 20, 4, 20}},
		{"for all", map[string]string{"EMAIL_CONNECTIONS": "4"}, [4]int{4, 4, 4, 4}},
		{"for one", map[string]string{"EMAIL_M_CONNECTIONS": "7"}, [4]int{4, 20, 7, 7}},
		{"how many they may become", map[string]string{"EMAIL_CONNECTIONS_MAX": "50", "EMAIL_M_CONNECTIONS_MAX": "9"}, [4]int{4, 50, 4, 9}},
		{"fewer than at first", map[string]string{"EMAIL_M_CONNECTIONS_MAX": "2"}, [4]int{4, 20, 2, 2}},
		{"one keeps its number, the others may grow", map[string]string{"EMAIL_CONNECTIONS_MAX": "30", "EMAIL_M_CONNECTIONS": "1"}, [4]int{4, 30, 1, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			vars := map[string]string{"EMAIL_MAILERS": "m", "EMAIL_M_HOST": "m"}
			maps.Copy(vars, tt.vars)
			s, warnings := load(t, vars)
			var got [4]int
			got[0], got[1] = s.Connections()
			got[2], got[3] = mustNamed(t, s, "m").Connections()
			if got != tt.want || len(warnings) > 0 {
				t.Errorf("got %v, want %v; warnings %q", got, tt.want, warnings)
			}
		})
	}
	s := Default()
	s.Worker.Connections = 8 // by the program
	if first, most := s.Connections(); first != 8 || most != 8 {
		t.Errorf("got %d and %d, want what the program says", first, most)
	}
}

func TestDescribe_Mailers(t *testing.T) {
	s, _ := load(t, map[string]string{"EMAIL_MAILERS": "marketing,b", "EMAIL_MARKETING_HOST": "mx", "EMAIL_MARKETING_USE_TLS": "true",
		"EMAIL_MARKETING_HOST_PASSWORD": "pw", "EMAIL_MARKETING_CONNECTIONS": "4", "EMAIL_CONNECTIONS": "7", "EMAIL_TIMEOUT": "5", "EMAIL_B_BACKEND": "dummy"})
	all := Describe(s)
	for _, want := range []Setting{
		{Group: "Delivery", Name: "EMAIL_MAILERS", Value: "marketing,b", Source: FromEnvironment},
		{Group: "mailer marketing", Name: "EMAIL_MARKETING_HOST", Value: "mx", Source: FromEnvironment},
		{Group: "mailer marketing", Name: "EMAIL_MARKETING_PORT", Value: "587", Default: "587", Source: FromDefault},
		{Group: "mailer marketing", Name: "EMAIL_MARKETING_HOST_USER", Source: FromDefault},
		{Group: "mailer marketing", Name: "EMAIL_MARKETING_HOST_PASSWORD", Value: "[redacted]", Source: FromEnvironment},
		{Group: "mailer marketing", Name: "EMAIL_MARKETING_CONNECTIONS", Value: "4", Default: "7", Source: FromEnvironment},
		{Group: "mailer marketing", Name: "EMAIL_MARKETING_TIMEOUT", Value: "5s", Default: "5s", Source: FromDefaultMailer},
		{Group: "mailer marketing", Name: "EMAIL_MARKETING_BACKEND", Value: "smtp", Default: "smtp", Source: FromDefault},
		{Group: "mailer b", Name: "EMAIL_B_BACKEND", Value: "dummy", Default: "smtp", Source: FromEnvironment},
		{Group: "mailer b", Name: "EMAIL_B_HOST", Source: FromDefault},
		{Group: "mailer b", Name: "EMAIL_B_CONNECTIONS", Value: "7", Default: "7", Source: FromDefaultMailer},
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
	if n, want := len(all), len(fields(&s))+2*len(mailerFields(&s, "b")); n != want {
		t.Errorf("%d settings are described, want %d", n, want)
	}
	if last := all[len(all)-1].Group; last != "mailer b" {
		t.Errorf("the last group is %s", last)
	}
}
