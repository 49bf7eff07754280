package intakeconfig_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/internal/intakeconfig"
	"github.com/mailpouch/mailpouch/settings"
)

// elsewhere are the settings that end in no configuration here.
var elsewhere = map[string]string{
	"Intake.CertFile":    "the caller reads it: TLS",
	"Intake.KeyFile":     "likewise",
	"Intake.APICertFile": "likewise",
	"Intake.APIKeyFile":  "likewise",
	"Intake.APIPlain":    "CheckWorker asks for it",
	"Intake.KeysFile":    "the caller reads it: intake.Keys",
	"Intake.API":         "the caller listens there",
	"Events.Write":       "mailpouch.QueueConfig and WorkerConfig have it: there is a test there",
	"Events.Size":        "likewise",
	"Events.Secret":      "TestWebhooks",
}

// Each setting, changed by itself, changes a configuration, or stands above with the reason.
func TestComplete(t *testing.T) {
	t.Parallel()
	none := configs(settings.Default())
	for _, group := range []string{"Intake", "Events"} {
		fields := reflect.ValueOf(settings.Default()).FieldByName(group).Type()
		for i := range fields.NumField() {
			name := group + "." + fields.Field(i).Name
			s := settings.Default()
			change(t, reflect.ValueOf(&s).Elem().FieldByName(group).Field(i))
			changed := !reflect.DeepEqual(configs(s), none)
			if _, excused := elsewhere[name]; changed == excused {
				t.Errorf("%s: changes a configuration: %v, excused: %v", name, changed, excused)
			}
		}
	}
}

func configs(s settings.Settings) []any {
	s.Events.Secret = settings.WebhookSecrets{Secret: settings.NewSecret(secret)}
	hooks, err := intakeconfig.Webhooks(s)
	return []any{intakeconfig.SMTP(s), intakeconfig.HTTP(s), fmt.Sprint(hooks.Targets, hooks.AllowPrivate, err)}
}

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" // of Standard Webhooks' own tests

// change gives a setting another value.
func change(t *testing.T, v reflect.Value) {
	t.Helper()
	switch f := v.Addr().Interface().(type) {
	case *string:
		*f = "x"
	case *int:
		*f = 999
	case *bool:
		*f = true
	case *time.Duration:
		*f = 99 * time.Hour
	case *settings.Size:
		*f = 1e9
	case *settings.Listeners:
		*f = settings.Listeners{{Network: "tcp", Address: ":25", TLS: true}, {Network: "unix", Address: "/s", LMTP: true}}
	case *settings.Networks:
		*f = settings.Networks{netip.MustParsePrefix("10.0.0.0/8")}
	case *settings.WebhookURLs:
		urls, err := settings.NewWebhookURLs("https://h.example/x")
		if err != nil {
			t.Fatal(err)
		}
		*f = urls
	case *settings.WebhookSecrets:
		*f = settings.WebhookSecrets{Secret: settings.NewSecret(secret)}
	default:
		t.Fatalf("this test cannot change a %T", f)
	}
}

// A message is taken that fits into the queue with its Received field, and no bigger one.
func TestSMTP_size(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		size, memory settings.Size
		want         int
	}{{25_000_000, 64_000_000, 24_999_000}, {0, 64_000_000, 63_999_000}, {10, 1_000_000, 1}} {
		s := settings.Default()
		s.Queue.MaxMessageSize, s.Intake.Memory = tt.size, tt.memory
		if got := intakeconfig.SMTP(s); got.MaxMessageSize != tt.want || got.MaxBytes != int64(tt.memory) {
			t.Errorf("%v, %v: %d, %d", tt.size, tt.memory, got.MaxMessageSize, got.MaxBytes)
		}
	}
}

func TestSMTP_hostname(t *testing.T) {
	t.Parallel()
	for give, want := range map[string]string{"mx.example.com": "mx.example.com", "[192.0.2.1]": "", "": ""} {
		s := settings.Default()
		s.Message.Hostname = give
		if got := intakeconfig.SMTP(s).Hostname; got != want {
			t.Errorf("%q: %q", give, got)
		}
	}
}

// A body may have a message of the biggest size as base64.
func TestHTTP(t *testing.T) {
	t.Parallel()
	for size, want := range map[settings.Size]int64{0: 64 << 20, 25_000_000: 64 << 20, 100_000_000: 200_000_000} {
		s := settings.Default()
		s.Queue.MaxMessageSize = size
		if got := intakeconfig.HTTP(s).MaxBody; got != want {
			t.Errorf("%v: %d", size, got)
		}
	}
}

func TestWebhooks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		urls    string
		secrets string
		private bool
		targets int
		want    string
	}{
		{"https://a.example/x, https://b.example/x", secret + "," + secret, false, 2, ""},
		{"https://a.example/x?token=1, https://a.example/x?token=2", secret, false, 0, "EMAIL_WEBHOOK_URL: two webhooks have the same URL"},
		{"http://127.0.0.1/", secret, true, 1, ""},
		{"http://127.0.0.1/", secret, false, 0, "EMAIL_WEBHOOK_URL: a webhook's URL must begin with https://"},
	} {
		s := settings.Default()
		urls, err := settings.NewWebhookURLs(tt.urls)
		if err != nil {
			t.Fatal(err)
		}
		s.Events.URLs, s.Events.Secret, s.Events.Private = urls, settings.WebhookSecrets{Secret: settings.NewSecret(tt.secrets)}, tt.private
		got, err := intakeconfig.Webhooks(s)
		if len(got.Targets) != tt.targets || (err == nil) != (tt.want == "") || err != nil && !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v", tt.urls, got.Targets, err)
		}
		if len(got.Targets) == 2 {
			h := http.Header{}
			got.Targets[0].Sign(h, "id", time.Now(), nil)
			if n := len(strings.Fields(h["webhook-signature"][0])); n != 2 { //nolint:staticcheck // as the specification writes it
				t.Errorf("signed with %d secrets", n)
			}
		}
	}
}
