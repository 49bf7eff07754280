package mailpouch

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

// elsewhere are the settings that end neither in a QueueConfig nor in a WorkerConfig.
var elsewhere = map[string]string{
	"Queue.RedisURL": "New connects there, and so does the worker",
	"Worker.Backend": "Connect asks the registry for it: TestWorkerConfig_Connect",
}

// TestConfig_Complete finds a setting of queues and workers that ends nowhere: each one, changed by
// itself, has to change a configuration, or stand above with the reason.
func TestConfig_Complete(t *testing.T) {
	none := settings.Default()
	queue, worker := configs(t, none)
	for _, group := range []string{"Queue", "Worker"} {
		fields := reflect.ValueOf(none).FieldByName(group).Type()
		for i := range fields.NumField() {
			name := group + "." + fields.Field(i).Name
			s := settings.Default()
			change(t, reflect.ValueOf(&s).Elem().FieldByName(group).Field(i))
			q, w := configs(t, s)
			changed := !reflect.DeepEqual(q, queue) || !reflect.DeepEqual(w, worker)
			if _, excused := elsewhere[name]; changed == excused {
				t.Errorf("%s: changes a configuration: %v, excused: %v", name, changed, excused)
			}
		}
	}
}

// TestConfig_Filled is the other way round: no field of the configurations is forgotten.
func TestConfig_Filled(t *testing.T) {
	s := settings.Default()
	for _, group := range []string{"Queue", "Worker", "Log"} {
		v := reflect.ValueOf(&s).Elem().FieldByName(group)
		for i := range v.NumField() {
			change(t, v.Field(i))
		}
	}
	s.Delivery.Mailers = settings.Names{"marketing"}
	s.Events.Write = "true"
	q := QueueConfig(s)
	w, err := WorkerConfig(t.Context(), withHost(t, s), backends.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	callers := []string{"Tracer", "Logger", "Observers", "BeforeSend", "Concurrency", "Version"} // not settings: the caller's, or derived
	for _, config := range []any{q, w} {
		v := reflect.ValueOf(config)
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if field.IsExported() && v.Field(i).IsZero() != slices.Contains(callers, field.Name) {
				t.Errorf("%T.%s is %v", config, field.Name, v.Field(i))
			}
		}
	}
}

// Events are written by programs and by workers alike, where they are asked for or posted.
func TestConfig_events(t *testing.T) {
	for _, tt := range []struct {
		write, url string
		want       tasks.EventLog
	}{
		{"auto", "", tasks.EventLog{}},
		{"true", "", tasks.EventLog{On: true, Size: 7_000_000}},
		{"auto", "https://h.example/", tasks.EventLog{On: true, Size: 7_000_000}},
		{"false", "https://h.example/", tasks.EventLog{}},
	} {
		s := settings.Default()
		s.Events.Write, s.Events.Size = tt.write, 7_000_000
		if tt.url != "" {
			urls, err := settings.NewWebhookURLs(tt.url)
			if err != nil {
				t.Fatal(err)
			}
			s.Events.URLs = urls
		}
		if q, w := configs(t, s); q.Events != tt.want || w.Events != tt.want {
			t.Errorf("%+v: %+v, %+v", tt, q.Events, w.Events)
		}
	}
}

// withHost returns the settings with a host for the mailer marketing.
func withHost(t *testing.T, s settings.Settings) settings.Settings {
	t.Helper()
	t.Setenv("EMAIL_MAILERS", "marketing")
	t.Setenv("EMAIL_MARKETING_URL", "smtp://marketing")
	t.Setenv("EMAIL_MARKETING_CONNECTIONS", "7")
	t.Setenv("EMAIL_MARKETING_DATA_TIMEOUT", "13m")
	loaded, _, err := settings.Load()
	if err != nil {
		t.Fatal(err)
	}
	loaded.Queue, loaded.Worker, loaded.Log, loaded.Events = s.Queue, s.Worker, s.Log, s.Events
	return loaded
}

func TestWorkerConfig_mailers(t *testing.T) {
	w, err := WorkerConfig(t.Context(), withHost(t, settings.Default()), backends.Builtin())
	if err != nil || w.Mailers["marketing"] != 7 || w.ReplyTimeout != 13*time.Minute {
		t.Errorf("got %v, %v, %v", w.Mailers, w.ReplyTimeout, err)
	}
	s := settings.Default()
	s.Delivery.Mailers = settings.Names{"a", "b"}
	_, err = WorkerConfig(t.Context(), s, backends.Builtin())
	var problems settings.Problems
	if !errors.As(err, &problems) || len(problems) != 2 || !strings.Contains(err.Error(), "EMAIL_A_HOST") || !strings.Contains(err.Error(), "EMAIL_B_HOST") {
		t.Errorf("got %v, want both mailers", err)
	}
}

func TestWorkerConfig_Connect(t *testing.T) {
	s := settings.Default()
	s.Worker.Backend = "own"
	s.Message.Hostname = "worker.example"
	var got settings.Settings
	registry := backends.Builtin()
	registry["own"] = backends.Entry{New: func(s settings.Settings) (mailer.Backend, error) {
		got = s
		return nil, errors.New("made")
	}}
	w, err := WorkerConfig(t.Context(), s, registry)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Connect(""); err == nil || got.Message.Hostname != "worker.example" || got.Using != "" {
		t.Errorf("got %v of %+v", err, got)
	}
	var unknown *settings.UnknownMailerError
	if _, err := w.Connect("nobody"); !errors.As(err, &unknown) {
		t.Errorf("got %v", err)
	}
}

func TestOptions(t *testing.T) {
	s := settings.Default()
	s.Queue.Name, s.Queue.MaxRetry = "bulk", 3
	if o := Options(s, tasks.Options{}); o.Queue != "bulk" || *o.MaxRetry != 3 {
		t.Errorf("got %+v", o)
	}
	if o := Options(s, tasks.Options{Queue: "critical", MaxRetry: new(0)}); o.Queue != "critical" || *o.MaxRetry != 0 {
		t.Errorf("got %+v", o)
	}
}

// configs returns the configurations without what cannot be compared.
func configs(t *testing.T, s settings.Settings) (tasks.QueueConfig, tasks.WorkerConfig) {
	t.Helper()
	s.Message.Hostname = "h.example" // or it is looked up
	w, err := WorkerConfig(context.Background(), s, backends.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	w.Connect = nil
	return QueueConfig(s), w
}

// change gives a setting another value.
func change(t *testing.T, v reflect.Value) {
	t.Helper()
	switch f := v.Addr().Interface().(type) {
	case *string:
		*f = "x"
	case *int:
		*f = 99
	case *bool:
		*f = true
	case *time.Duration:
		*f = 99 * time.Hour
	case *settings.Size:
		*f = 99
	case *settings.Queues:
		*f = settings.Queues{"x": 9}
	case *settings.URL:
		u, err := settings.NewURL("redis://elsewhere:6379/0")
		if err != nil {
			t.Fatal(err)
		}
		*f = u
	default:
		t.Fatalf("this test cannot change a %T", f)
	}
}
