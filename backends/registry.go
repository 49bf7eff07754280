package backends

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/backends/console"
	"github.com/mailpouch/mailpouch/backends/dummy"
	"github.com/mailpouch/mailpouch/backends/failover"
	"github.com/mailpouch/mailpouch/backends/filebased"
	"github.com/mailpouch/mailpouch/backends/locmem"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

// Constructor makes a backend from the settings. It opens no connection. It is called
// for each connection that is needed, and may return the same value each time only
// if that may be used by several goroutines, as a queue may.
type Constructor func(settings.Settings) (mailer.Backend, error)

// Entry is a backend that a registry can make.
type Entry struct {
	New Constructor

	// In, if not nil, takes the place of New, for a backend that is made of others: it gets the registry that it is called in.
	In func(r Registry, s settings.Settings) (mailer.Backend, error)

	// Schemes are those of EMAIL_URL that stand for the backend, such as "webhook+https", in
	// lower case. New finds what such a URL says in s.Delivery.URL.Custom(), and in s.Using the
	// name of the mailer that it is for. A custom URL with another scheme it never sees.
	Schemes []string
}

// Registry has an entry for each name. It is a map: a program adds its own backends, and
// replaces ours, before it passes the registry on.
type Registry map[string]Entry

// queueName is the one name that is not built in: the package mailpouch adds it.
const queueName = "queue"

// failoverName is the backend that is made of others.
const failoverName = "failover"

// Builtin returns a registry with smtp, console, filebased, locmem, dummy and failover.
//
// The locmem backends of one registry share an outbox, which each of them returns:
// b.(*locmem.Backend).Outbox(). A test may as well register one of its own:
//
//	outbox := new(locmem.Outbox)
//	reg["locmem"] = backends.Entry{New: func(s settings.Settings) (mailer.Backend, error) {
//		return locmem.New(locmem.Config{Outbox: outbox, Defaults: backends.Defaults(s)})
//	}}
func Builtin() Registry {
	outbox, logins, health := new(locmem.Outbox), new(Logins), new(failover.Health)
	return Registry{
		"smtp": {
			Schemes: []string{"smtp", "smtp+starttls", "smtps"},
			New:     func(s settings.Settings) (mailer.Backend, error) { return SMTP(s, logins, nil) },
		},
		"console": {
			Schemes: []string{"console"},
			New:     func(s settings.Settings) (mailer.Backend, error) { return backend(console.New(consoleConfig(s))) },
		},
		"filebased": {
			Schemes: []string{"filebased"},
			New:     func(s settings.Settings) (mailer.Backend, error) { return backend(filebased.New(filebasedConfig(s))) },
		},
		"locmem": {
			Schemes: []string{"locmem"},
			New:     func(s settings.Settings) (mailer.Backend, error) { return backend(locmem.New(locmemConfig(s, outbox))) },
		},
		"dummy": {
			Schemes: []string{"dummy"},
			New:     func(s settings.Settings) (mailer.Backend, error) { return backend(dummy.New(dummyConfig(s))) },
		},
		failoverName: {
			In: func(r Registry, s settings.Settings) (mailer.Backend, error) { return r.failover(s, health) },
		},
	}
}

// failover makes the backend that sends with the mailers of EMAIL_MEMBERS. All that it makes share what they know of these.
func (r Registry) failover(s settings.Settings, health *failover.Health) (mailer.Backend, error) {
	if err := s.CheckMembers(); err != nil {
		return nil, err
	}
	config := failover.Config{Name: s.Using, Weighted: s.Delivery.Policy == settings.PolicyWeighted, Health: health}
	for _, m := range s.Delivery.Members {
		named, err := s.Named(m.Name)
		if err != nil {
			return nil, err
		}
		b, err := r.New(named.Delivery.Backend, named)
		if err != nil {
			return nil, err
		}
		config.Members = append(config.Members, failover.Member{Name: m.Name, Weight: m.Weight, Backend: b})
	}
	return backend(failover.New(config))
}

// backend returns no backend with an error: a nil *smtp.Backend in a mailer.Backend
// would not be nil.
func backend[B mailer.Backend](b B, err error) (mailer.Backend, error) {
	if err != nil {
		return nil, err
	}
	return b, nil
}

// New makes the backend of that name, which may be one of Django's dotted paths. Unless it is the queue, it sends by the rules of
// the settings, EMAIL_ALLOWED_RECIPIENTS and EMAIL_OVERRIDE_RECIPIENTS, and signs what it sends (EMAIL_DKIM_DOMAIN). The
// error is an UnknownBackendError, what the constructor says, settings.Problems, or what is wrong with a key.
func (r Registry) New(name string, s settings.Settings) (mailer.Backend, error) {
	name = settings.CanonicalBackend(name)
	entry, ok := r[name]
	if !ok {
		known := r.names()
		return nil, &UnknownBackendError{Name: name, Nearest: settings.Nearest(name, known), Known: known, Using: s.Using}
	}
	if err := s.CheckSecrets(); err != nil && name != queueName {
		return nil, err
	}
	if u := s.Delivery.URL.Custom(); u != nil && !slices.Contains(entry.Schemes, u.Scheme) {
		s.Delivery.URL = settings.MailURL{}
	}
	create := entry.New
	if entry.In != nil {
		create = func(s settings.Settings) (mailer.Backend, error) { return entry.In(r, s) }
	}
	b, err := create(s)
	if err == nil && name != queueName && entry.In == nil { // what is put into a queue is signed where it is taken out
		b, err = sign(b, s)
	}
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", where(s.Using), name, err)
	}
	if name == queueName || entry.In != nil {
		return b, nil // the worker's settings say who gets what waits in it, those of the others who gets what goes with them
	}
	return ruled(b, s)
}

// Load reads the environment, as settings.Load does, for a program with these backends: their
// schemes may begin an EMAIL_URL.
func (r Registry) Load() (settings.Settings, []string, error) {
	loader, err := r.Loader()
	if err != nil {
		return settings.Default(), nil, err
	}
	return loader.Load()
}

// Loader returns the loader for a program with these backends. Two of them that declare the
// same scheme are an error.
func (r Registry) Loader() (settings.Loader, error) {
	schemes := map[string]string{}
	for _, name := range r.names() {
		for _, scheme := range r[name].Schemes {
			if other, taken := schemes[scheme]; taken {
				return settings.Loader{}, fmt.Errorf("backends: %s and %s both declare the scheme %s of EMAIL_URL", other, name, scheme)
			}
			schemes[scheme] = name
		}
	}
	return settings.Loader{Schemes: schemes}, nil
}

// where begins an error, with the mailer if it has a name.
func where(using string) string {
	if using == "" {
		return "backends: "
	}
	return "backends: mailer " + using + ": "
}

func (r Registry) names() []string { return slices.Sorted(maps.Keys(r)) }

// UnknownBackendError says that a registry has no backend of a name.
type UnknownBackendError struct {
	Name    string
	Nearest string   // the name that was most likely meant, or ""
	Known   []string // all names of the registry, sorted
	Using   string   // the mailer that wants it, "" for the default one
}

func (e *UnknownBackendError) Error() string {
	text := fmt.Sprintf("%sno backend is named %q", where(e.Using), e.Name)
	if e.Name == queueName {
		return text + ": a program that hands its mail to workers has its Mailer from mailpouch.Open or mailpouch.New"
	}
	if e.Nearest != "" {
		text += fmt.Sprintf("; did you mean %s?", e.Nearest)
	}
	return text + " (there are " + strings.Join(e.Known, ", ") + ")"
}
