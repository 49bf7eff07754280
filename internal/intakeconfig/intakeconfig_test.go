package intakeconfig_test

import (
	"net/netip"
	"reflect"
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
}

// Each setting, changed by itself, changes a configuration, or stands above with the reason.
func TestComplete(t *testing.T) {
	t.Parallel()
	none := configs(settings.Default())
	for _, group := range []string{"Intake"} {
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

func configs(s settings.Settings) []any { return []any{intakeconfig.SMTP(s)} }

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
