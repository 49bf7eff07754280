package settings

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/internal/rate"
)

func TestDefault(t *testing.T) {
	s, warnings := load(t, nil)
	if len(warnings) > 0 {
		t.Errorf("an empty environment warns: %q", warnings)
	}
	s.read = nil
	if d := Default(); !reflect.DeepEqual(s, d) {
		t.Errorf("Load of an empty environment:\n%+v\nDefault:\n%+v", s, d)
	}
	if err := s.Validate(); err != nil {
		t.Errorf("the defaults do not validate: %v", err)
	}
	for _, f := range fields(&s) {
		if err := f.decode(false); err != nil {
			t.Errorf("default of %s: %v", f.name, err)
		}
	}
}

func TestDefaultsAreDjangos(t *testing.T) {
	s := Default()
	for _, tt := range []struct {
		name      string
		got, want any
	}{
		{"backend", s.Delivery.Backend, "smtp"},
		{"host", s.SMTP.Hosts.String(), "localhost"},
		{"port", s.SMTP.Port, 25},
		{"user", s.SMTP.User, ""},
		{"password", s.SMTP.Password.Reveal(), ""},
		{"TLS", s.SMTP.UseTLS, false},
		{"SSL", s.SMTP.UseSSL, false},
		{"from", s.Message.DefaultFrom, "webmaster@localhost"},
		{"server", s.Message.ServerEmail, "root@localhost"},
		{"prefix", s.Message.SubjectPrefix, "[Django] "},
		{"charset", s.Message.Charset, "utf-8"},
		{"local time", s.Message.LocalTime, false},
		{"admins", len(s.Message.Admins), 0},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, tt.got, tt.want)
		}
	}
}

// TestLoad sets every variable to something else than its default and looks at it.
func TestLoad(t *testing.T) {
	pem := filepath.Join(t.TempDir(), "pem")
	if err := os.WriteFile(pem, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	key := ed25519File(t)
	vars := map[string]string{
		"EMAIL_DKIM_DOMAIN": "example.com, example.org", "EMAIL_DKIM_SELECTOR": "mail", "EMAIL_DKIM_KEY_FILE": key,
		"EMAIL_BACKEND": "django.core.mail.backends.filebased.EmailBackend", "EMAIL_FILE_PATH": "/var/mail",
		"DEFAULT_FROM_EMAIL": "Shop <shop@example.com>", "SERVER_EMAIL": "ops@example.com",
		"EMAIL_SUBJECT_PREFIX": "[Shop] ", "ADMINS": `"Doe, Ann" <ann@example.com>, root,`, "MANAGERS": "bob@example.com",
		"DEFAULT_CHARSET": "iso-8859-15", "EMAIL_USE_LOCALTIME": "True", "EMAIL_HOSTNAME": "web1.example.com",
		"EMAIL_HOST": "mx1.example.com, 2001:db8::1", "EMAIL_PORT": "465", "EMAIL_HOST_USER": "u",
		"EMAIL_HOST_PASSWORD": "a: #b ", "EMAIL_USE_SSL": "1", "EMAIL_SSL_CERTFILE": pem, "EMAIL_SSL_KEYFILE": pem,
		"EMAIL_SSL_CAFILE": pem, "EMAIL_SSL_SERVER_NAME": "relay", "EMAIL_ALLOW_INSECURE_AUTH": "true", "EMAIL_AUTH_MECHANISMS": "plain, LOGIN,plain",
		"EMAIL_ALLOWED_RECIPIENTS": "example.com, .example.org", "EMAIL_OVERRIDE_RECIPIENTS": "qa@example.com",
		"EMAIL_TEMPORARY_REPLIES": "550 5.1.90, 554 5.7.0 *too many* ,",
		"EMAIL_TIMEOUT":           "2.5", "EMAIL_DATA_TIMEOUT": "11m", "EMAIL_PIPELINING": "OFF", "EMAIL_CHUNKING": "auto",
		"EMAIL_CONNECTION_IDLE": "30s", "EMAIL_CONNECTION_MAX_MESSAGES": "7", "EMAIL_CONNECTION_MAX_BYTES": "8",
		"EMAIL_CONNECTION_MAX_AGE": "9m", "REDIS_URL": "rediss://u:pw@r:6380/1", "EMAIL_QUEUE": "bulk",
		"EMAIL_ATTACHMENT_THRESHOLD": "1MiB", "EMAIL_MAX_MESSAGE_SIZE": "0",
		"EMAIL_MAX_RETRY": "0", "EMAIL_TASK_TIMEOUT": "1h", "EMAIL_IDEMPOTENCY_WINDOW": "2h", "EMAIL_MASS_SIZE": "50", "EMAIL_QUEUE_SHARDS": "4", "EMAIL_QUEUE_BACKEND": "dummy", "EMAIL_QUEUES": "bulk,news:2",
		"EMAIL_CONNECTIONS": "5", "EMAIL_CONNECTIONS_MAX": "15", "EMAIL_BATCH_SIZE": "6", "EMAIL_WORKER_MEMORY": "1GB", "EMAIL_RETRY_MIN": "7s", "EMAIL_RETRY_MAX": "8s",
		"EMAIL_MAX_AGE": "9h", "EMAIL_HISTORY": "24h", "EMAIL_HISTORY_SIZE": "5MB", "EMAIL_BATCH_TIMEOUT": "10m", "EMAIL_SHUTDOWN_TIMEOUT": "11m", "LOG_LEVEL": "WARNING",
		"LOG_FORMAT": "json", "EMAIL_MAILERS": "marketing, eu-west", "EMAIL_MEMBERS": "marketing:3, eu-west", "EMAIL_POLICY": "Weighted", "EMAIL_MARKETING_HOST": "m", "EMAIL_EU_WEST_HOST": "e",
		"EMAIL_RATE": "14/s, 50000/d ,", "EMAIL_RATE_RECIPIENTS": "30/m burst=5", "EMAIL_RATE_CONNECTIONS": "12", "EMAIL_RATE_DOMAINS": "Gmail.com:20/s,*:50/s",
		"EMAIL_HTTP_ADDR": "0.0.0.0:80", "EMAIL_HTTP_PASSWORD": "p", "EMAIL_HTTP_TOKEN": "t", "EMAIL_HTTP_HOSTS": "mail.example.com, ops",
		"EMAIL_HTTP_SHOW_ADDRESSES": "true", "EMAIL_HTTP_ALLOW_WRITE": "true", "EMAIL_METRICS_TAGS": "news, invoice",
		"EMAIL_SUBMISSION_ADDR": "smtps://0.0.0.0:465, lmtp+unix:///run/lmtp.sock", "EMAIL_SUBMISSION_CERTFILE": pem, "EMAIL_SUBMISSION_KEYFILE": pem,
		"EMAIL_SUBMISSION_NETWORKS": "10.1.0.0/16, ::1", "EMAIL_SUBMISSION_CONNECTIONS": "11", "EMAIL_SUBMISSION_CONNECTIONS_PER_ADDRESS": "12",
		"EMAIL_SUBMISSION_RECIPIENTS": "113", "EMAIL_SUBMISSION_MEMORY": "1GB", "EMAIL_SUBMISSION_TIMEOUT": "14s", "EMAIL_API_ADDR": ":8026", "EMAIL_API_CERTFILE": pem, "EMAIL_API_KEYFILE": pem,
		"EMAIL_API_ALLOW_PLAIN": "true", "EMAIL_API_KEYS_FILE": pem, "EMAIL_EVENTS": "true", "EMAIL_EVENTS_SIZE": "15MB",
		"EMAIL_WEBHOOK_URL": "https://h/hook", "EMAIL_WEBHOOK_SECRET": webhookPassword, "EMAIL_WEBHOOK_ALLOW_PRIVATE": "true",
		"EMAIL_LOG_SHOW_ADDRESSES": "true",
	}
	s, warnings := load(t, vars)
	want := Settings{
		Delivery: Delivery{
			Backend: "filebased", FilePath: "/var/mail", Members: Members{{"marketing", 3}, {"eu-west", 1}}, Policy: PolicyWeighted, Mailers: Names{"marketing", "eu-west"},
			AllowedRecipients: Allowed{"example.com", ".example.org"}, OverrideRecipients: Recipients{"qa@example.com"},
		},
		Message: Message{
			DefaultFrom: "Shop <shop@example.com>", ServerEmail: "ops@example.com", SubjectPrefix: "[Shop] ",
			Admins: Addresses{`"Doe, Ann" <ann@example.com>`, "root"}, Managers: Addresses{"bob@example.com"},
			Charset: "iso-8859-15", LocalTime: true, Hostname: "web1.example.com",
		},
		SMTP: SMTP{
			Hosts: Hosts{"mx1.example.com", "2001:db8::1"}, Port: 465, User: "u", Password: NewSecret("a: #b "),
			UseSSL: true, CertFile: pem, KeyFile: pem, CAFile: pem, ServerName: "relay", AllowInsecureAuth: true, AuthMechanisms: Mechanisms{"PLAIN", "LOGIN"},
			TemporaryReplies: Replies{"550 5.1.90", "554 5.7.0 *too many*"},
			Timeout:          Seconds(2500 * time.Millisecond), DataTimeout: 11 * time.Minute,
			Pipelining: "off", Chunking: "auto",
			IdleTimeout: 30 * time.Second, MaxMessages: 7, MaxBytes: 8, MaxAge: 9 * time.Minute,
		},
		OAuth: OAuth{Provider: "off"},
		DKIM:  DKIM{Domains: List{"example.com", "example.org"}, Selectors: List{"mail"}, KeyFiles: List{key}},
		Queue: Queue{Name: "bulk", MaxRetry: 0, TaskTimeout: time.Hour, BulkSize: 50, Shards: 4, IdempotencyWindow: 2 * time.Hour, AttachmentThreshold: 1 << 20},
		Worker: Worker{
			Backend: "dummy", Queues: Queues{"bulk": 1, "news": 2}, Connections: 5, ConnectionsMax: 15, BatchSize: 6, Memory: 1e9,
			RetryMin: 7 * time.Second, RetryMax: 8 * time.Second, MaxAge: 9 * time.Hour, History: 24 * time.Hour, HistorySize: 5_000_000,
			BatchTimeout: 10 * time.Minute, ShutdownTimeout: 11 * time.Minute,
		},
		Rates: Rates{
			Messages:    Limits{{Most: 14, Per: time.Second, Burst: 1}, {Most: 50000, Per: 24 * time.Hour}},
			Recipients:  Limits{{Most: 30, Per: time.Minute, Burst: 5}},
			Connections: 12,
			Domains:     DomainLimits{{Name: "gmail.com", Limit: rate.Limit{Most: 20, Per: time.Second, Burst: 1}}, {Name: "*", Limit: rate.Limit{Most: 50, Per: time.Second, Burst: 1}}},
		},
		Intake: Intake{
			Submission: Listeners{{Network: "tcp", Address: "0.0.0.0:465", TLS: true}, {Network: "unix", Address: "/run/lmtp.sock", LMTP: true}},
			CertFile:   pem, KeyFile: pem, Networks: Networks{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("::1/128")},
			Connections: 11, ConnectionsPerAddress: 12, Recipients: 113, Timeout: 14 * time.Second, Memory: 1e9,
			API: ":8026", APICertFile: pem, APIKeyFile: pem, APIPlain: true, KeysFile: pem,
		},
		Events: Events{Write: "true", Size: 15_000_000, URLs: s.Events.URLs, Secret: WebhookSecrets{NewSecret(webhookPassword)}, Private: true},
		HTTP: HTTP{
			Addr: "0.0.0.0:80", Password: NewSecret("p"), Token: NewSecret("t"), Hosts: Hosts{"mail.example.com", "ops"},
			ShowAddresses: true, AllowWrite: true, MetricsTags: Tags{"news", "invoice"},
		},
		Log: Log{Level: "warn", Format: "json", ShowAddresses: true},
	}
	if got := s.Queue.RedisURL.Reveal(); got != vars["REDIS_URL"] {
		t.Errorf("REDIS_URL: got %q", got)
	}
	if got := s.Events.URLs.All(); !slices.Equal(got, []string{"https://h/hook"}) {
		t.Errorf("EMAIL_WEBHOOK_URL: got %q", got)
	}
	want.Queue.RedisURL, want.read, want.named = s.Queue.RedisURL, s.read, s.named
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got\n%+v\nwant\n%+v", s, want)
	}
	if len(warnings) != 5 || !slices.ContainsFunc(warnings, func(w string) bool { return strings.HasPrefix(w, "EMAIL_CONNECTIONS_MAX: has no effect") }) { // of what excludes each other; two say who gets the mail
		t.Errorf("warnings: %q", warnings)
	}
	// A setting that is left out above would be one that no test has seen working.
	def := Default()
	for i, f := range fields(&s) {
		if _, ok := vars[f.name]; !ok && f.name != "EMAIL_USE_TLS" && f.name != urlVariable && !strings.HasPrefix(f.name, oauthVariable) { // these exclude others
			t.Errorf("%s is not tested", f.name)
		}
		if ok := vars[f.name] != ""; ok && f.show() == fields(&def)[i].show() && !isHidden(f) {
			t.Errorf("%s is tested with its default", f.name)
		}
	}
	if s, _ := load(t, map[string]string{"EMAIL_USE_TLS": "true"}); !s.SMTP.UseTLS {
		t.Error("EMAIL_USE_TLS=true is not read")
	}
	if s, _ := load(t, map[string]string{"EMAIL_URL": "smtp://mx"}); s.Delivery.URL.Reveal() != "smtp://mx" {
		t.Error("EMAIL_URL is not read")
	}
}

func isHidden(f field) bool {
	_, secret := f.value.Interface().(Secret)
	return secret
}

func TestLoad_Empty(t *testing.T) {
	vars := map[string]string{}
	for _, f := range fields(&Settings{}) {
		vars[f.name] = " "
	}
	vars["EMAIL_SUBJECT_PREFIX"] = ""
	s, _ := load(t, vars)
	if s.Message.SubjectPrefix != "" {
		t.Errorf("an empty EMAIL_SUBJECT_PREFIX gives %q", s.Message.SubjectPrefix)
	}
	want := Default()
	want.Message.SubjectPrefix, want.read = "", s.read
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got\n%+v\nwant\n%+v", s, want)
	}
}

func TestLoad_Durations(t *testing.T) {
	for _, tt := range []struct {
		text string
		want time.Duration
	}{
		{"10", 10 * time.Second},
		{"2.5", 2500 * time.Millisecond},
		{"0.25", 250 * time.Millisecond},
		{"1500ms", 1500 * time.Millisecond},
		{"1m30s", 90 * time.Second},
	} {
		t.Run(tt.text, func(t *testing.T) {
			s, _ := load(t, map[string]string{"EMAIL_TIMEOUT": tt.text})
			if got := time.Duration(s.SMTP.Timeout); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestCanonicalBackend(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"django.core.mail.backends.smtp.EmailBackend", "smtp"},
		{"django.core.mail.backends.console.EmailBackend", "console"},
		{"django.core.mail.backends.filebased.EmailBackend", "filebased"},
		{"django.core.mail.backends.locmem.EmailBackend", "locmem"},
		{"django.core.mail.backends.dummy.EmailBackend", "dummy"},
		{"smtp", "smtp"},
		{" queue ", "queue"},
		{"django.core.mail.backends.smtp.Backend", "django.core.mail.backends.smtp.Backend"},
		{"shop.mail.EmailBackend", "shop.mail.EmailBackend"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := CanonicalBackend(tt.name); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestLoad_Warnings(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for _, tt := range []struct {
		name string
		vars map[string]string
		want []string // one for each warning: its beginning, and after ... a part of the rest
	}{
		{"letters swapped", map[string]string{"EMAIL_HSOT": "x"},
			[]string{"EMAIL_HSOT: is not a setting ... did you mean EMAIL_HOST?"}},
		{"end of a name", map[string]string{"EMAIL_PASSWORD": "x", "EMAIL_SSL": "1"},
			[]string{"EMAIL_PASSWORD: ... EMAIL_HOST_PASSWORD?", "EMAIL_SSL: ... EMAIL_USE_SSL?"}},
		{"nothing like it", map[string]string{"EMAIL_XYZZY": "x"}, []string{"EMAIL_XYZZY: is not a setting and has no effect$"}},
		{"known, and other programs'", map[string]string{"LOG_LEVEL": "info", "REDIS_URL": "redis://h", "ADMINS": "a@b.c",
			"EMAIL": "me@example.com", "GIT_COMMITTER_EMAIL": "me@example.com", "LOG_LEVELS": "x"}, nil},
		{"user without password", map[string]string{"EMAIL_HOST_USER": "u"}, []string{"EMAIL_HOST_USER: ... EMAIL_HOST_PASSWORD"}},
		{"password without user", map[string]string{"EMAIL_HOST_PASSWORD": "p"}, []string{"EMAIL_HOST_PASSWORD: ... EMAIL_HOST_USER"}},
		{"password in clear text to another machine",
			map[string]string{"EMAIL_HOST": "localhost,mx.example.com", "EMAIL_HOST_USER": "u", "EMAIL_HOST_PASSWORD": "p"},
			[]string{"EMAIL_HOST_PASSWORD: the password is not sent to localhost,mx.example.com without TLS"}},
		{"password in clear text to this machine",
			map[string]string{"EMAIL_HOST": "::1,127.0.0.1,localhost", "EMAIL_HOST_USER": "u", "EMAIL_HOST_PASSWORD": "p"}, nil},
		{"password in clear text as wanted",
			map[string]string{"EMAIL_HOST": "192.0.2.1", "EMAIL_HOST_USER": "u", "EMAIL_HOST_PASSWORD": "p", "EMAIL_ALLOW_INSECURE_AUTH": "true"}, nil},
		{"SSL on 25", map[string]string{"EMAIL_USE_SSL": "true"}, []string{"EMAIL_PORT: 25 ... 465"}},
		{"SSL on 587", map[string]string{"EMAIL_USE_SSL": "true", "EMAIL_PORT": "587"}, []string{"EMAIL_PORT: 587 ... 465"}},
		{"STARTTLS on 465", map[string]string{"EMAIL_USE_TLS": "true", "EMAIL_PORT": "465"}, []string{"EMAIL_PORT: 465 ... EMAIL_USE_SSL"}},
		{"STARTTLS on 587", map[string]string{"EMAIL_USE_TLS": "true", "EMAIL_PORT": "587"}, nil},
		{"a name to verify and no TLS", map[string]string{"EMAIL_SSL_SERVER_NAME": "mx"}, []string{"EMAIL_SSL_SERVER_NAME: has no effect"}},
		{"a queue that nobody serves", map[string]string{"EMAIL_QUEUE": "news"}, []string{`EMAIL_QUEUE: ... "news" ... critical:6,default:3,bulk:1`}},
		{"a worker for one queue", map[string]string{"EMAIL_QUEUES": "bulk"}, nil},
		{"a key file that only the worker has", map[string]string{"EMAIL_BACKEND": "queue", "EMAIL_USE_TLS": "true",
			"EMAIL_SSL_CERTFILE": missing, "EMAIL_SSL_KEYFILE": missing},
			[]string{"EMAIL_SSL_CERTFILE: cannot be read ... missing.pem", "EMAIL_SSL_KEYFILE: cannot be read"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, warnings := load(t, tt.vars)
			compareLines(t, warnings, tt.want)
		})
	}
}

// compareLines looks for the parts of each wanted line, which stand between "...". A $
// is the end of the line.
func compareLines(t *testing.T, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %d lines, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i, line := range want {
		start, atEnd := strings.CutSuffix(line, "$")
		parts := strings.Split(start, " ... ")
		if !strings.HasPrefix(got[i], parts[0]) || atEnd && !strings.HasSuffix(got[i], parts[len(parts)-1]) ||
			slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(got[i], p) }) {
			t.Errorf("got  %s\nwant %s", got[i], line)
		}
	}
}
