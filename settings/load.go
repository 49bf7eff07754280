package settings

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
)

// Load reads and checks the process's environment. It returns the settings, and warnings of
// one line each: about variables that nothing reads (a mistyped EMAIL_ name) and values that are
// allowed but rarely meant. The error, if not nil, is a Problems with everything that is wrong.
// The Settings then have the default in place of each value that could not be read, and are of
// use to Describe only.
func Load() (Settings, []string, error) { return Loader{}.Load() }

// Loader is Load for a program of which more is known. The zero value does what Load does.
type Loader struct {
	// Producer means that the program leaves its mail to workers: EMAIL_BACKEND is queue
	// where no variable says otherwise, and EMAIL_URL is the workers'.
	Producer bool

	// Schemes are the schemes of EMAIL_URL beside the built-in ones, in lower case, and the
	// name of the backend that each is for: {"webhook+https": "webhook"}. MailURL.Custom has
	// what such a URL says. Any other scheme is a problem, but not in a Producer: the worker may
	// know it.
	Schemes map[string]string
}

// Load is the function of that name.
func (l Loader) Load() (Settings, []string, error) {
	s := Settings{read: map[string]origin{}}
	var problems Problems
	set := s.decode(&problems, l)
	s.normalise()
	s.remember(FromEnvironment, func(f field) bool { return set[f.name] })
	s.applyURL(&problems)
	if l.Producer && !set[backendVariable] && !problems.has(backendVariable) {
		s.Delivery.Backend = queueName
	}
	for _, name := range s.goodNames() {
		s.readMailer(name, &problems, l)
	}
	s.check(&problems)
	warnings := append(s.unknown(os.Environ()), s.warnings(problems, l.Producer && s.Delivery.Backend == queueName)...)
	return s, warnings, problems.err()
}

// decode fills the fields from the environment, and returns which variables are set.
func (s *Settings) decode(problems *Problems, l Loader) (set map[string]bool) {
	set = map[string]bool{}
	for _, f := range s.readable() {
		set[f.name] = f.isSet()
		err := f.lineEnd(set[f.name])
		if err == nil {
			err = l.declared(f, f.decode(set[f.name]))
		}
		if err != nil {
			problems.add(f.name, "%v", err)
			set[f.name] = false
			_ = f.decode(false) // a default; a test checks that it can be read
		}
	}
	return set
}

// Default returns the settings of an empty environment.
func Default() Settings {
	var s Settings
	for _, f := range fields(&s) {
		_ = f.decode(false)
	}
	return s
}

// normalise replaces Django's and Python's spellings by ours.
func (s *Settings) normalise() {
	s.Delivery.Backend = CanonicalBackend(s.Delivery.Backend)
	s.Worker.Backend = CanonicalBackend(s.Worker.Backend)
	for _, f := range fields(s) {
		if _, ok := f.tag("oneof"); ok {
			f.value.Set(reflect.ValueOf(strings.ToLower(f.value.String())))
		}
	}
	if s.Log.Level == "warning" { // Python's name
		s.Log.Level = "warn"
	}
}

// CanonicalBackend returns "smtp" for Django's "django.core.mail.backends.smtp.EmailBackend",
// likewise for its other backends, and any other name as it is.
func CanonicalBackend(name string) string {
	name = strings.TrimSpace(name)
	short, ok := strings.CutPrefix(name, "django.core.mail.backends.")
	if !ok {
		return name
	}
	short, ok = strings.CutSuffix(short, ".EmailBackend")
	if !ok {
		return name
	}
	return short
}

// applyURL fills the settings that the mailer's URL takes the place of. The default mailer's
// URL also chooses the program's and the worker's backend, each only if its own variable does
// not: a program with EMAIL_BACKEND=queue goes on leaving its mail to a worker, which delivers
// by the URL.
func (s *Settings) applyURL(problems *Problems) {
	t := s.Delivery.URL.target
	if t == nil {
		return
	}
	isSet := func(name string) bool {
		v := mailerVariable(s.Using, name)
		_, set := s.read[v]
		return set || problems.has(v)
	}
	names := t.variables()
	if s.Using != "" {
		names = append(names, backendVariable)
	}
	var twice []string
	for _, name := range names {
		if isSet(name) {
			twice = append(twice, mailerVariable(s.Using, name))
		}
	}
	if len(twice) > 0 {
		problems.add(mailerVariable(s.Using, urlVariable), "takes the place of %s; leave out the one or the other", strings.Join(twice, ", "))
	}
	s.fill(t)
	if s.Using != "" || !isSet(backendVariable) {
		s.Delivery.Backend = t.backend
		names = append(names, backendVariable)
	}
	if s.Using == "" && !isSet(queueBackendVariable) {
		s.Worker.Backend = t.backend
		names = append(names, queueBackendVariable)
	}
	s.remember(FromURL, func(f field) bool { return slices.Contains(names, f.key) })
}

// fill takes the server or the directory from a URL.
func (s *Settings) fill(t *mailTarget) {
	switch t.backend {
	case "filebased":
		s.Delivery.FilePath = t.path
	case "smtp":
		c := t.server
		s.SMTP.Hosts, s.SMTP.Port, s.SMTP.UseTLS, s.SMTP.UseSSL = c.hosts, c.port, c.useTLS, c.useSSL
		if c.user != "" {
			s.SMTP.User = c.user
		}
		if c.password.Reveal() != "" {
			s.SMTP.Password = c.password
		}
	}
}

// readMailer reads the variables of one mailer.
func (s *Settings) readMailer(name string, problems *Problems, l Loader) {
	m := newNamed(name)
	m.own.read = s.read
	set := m.own.decode(problems, l)
	m.own.normalise()
	m.own.remember(FromEnvironment, func(f field) bool { return set[f.name] })
	m.set = map[string]bool{}
	for _, f := range m.own.readable() {
		m.set[f.key] = set[f.name]
	}
	if !m.set["EMAIL_HOST"] {
		m.own.SMTP.Hosts = nil
	}
	if !m.set["EMAIL_PORT"] {
		m.own.SMTP.Port = m.own.SMTP.usualPort()
	}
	m.own.applyURL(problems)
	m.own.read = nil
	s.named = append(s.named, m)
}

// declared gives a URL with a scheme that is none of ours to the backend that has declared it.
// err is what reading the field has led to.
func (l Loader) declared(f field, err error) error {
	u, ok := f.value.Addr().Interface().(*MailURL)
	if !ok || err != nil && !errors.Is(err, errMailScheme) || err == nil && u.Custom() == nil {
		return err
	}
	if err != nil {
		return l.schemeError()
	}
	t := u.target
	backend, ok := l.Schemes[t.custom.Scheme]
	switch {
	case ok && t.broken:
		return errMailURL
	case ok:
		t.backend = backend
	case l.Producer && t.custom.Host != "":
		t.unknown = true
	default:
		return l.schemeError()
	}
	return nil
}

// schemeError is errMailScheme with the schemes that the program's own backends have declared.
func (l Loader) schemeError() error {
	var own []string
	for _, scheme := range slices.Sorted(maps.Keys(l.Schemes)) {
		if u, err := parseMailURL(scheme + "://h/x"); err == nil && u.custom != nil {
			own = append(own, scheme+":")
		}
	}
	if len(own) == 0 {
		return errMailScheme
	}
	return fmt.Errorf("%w; or with %s", errMailScheme, strings.Join(own, " or "))
}
