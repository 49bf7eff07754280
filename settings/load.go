package settings

import (
	"os"
	"reflect"
	"strings"
)

// Load reads the process's environment. The error, if not nil, is a Problems with
// everything that is wrong; the Settings then have defaults in the places that could
// not be read, and are good for Describe only. The warnings, one line each, name what
// was not understood (a mistyped EMAIL_ variable) or is seldom meant.
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
	s.useURL(&problems)
	if l.Producer && !set[backendVariable] && !problems.concern(backendVariable) {
		s.Delivery.Backend = queueName
	}
	for _, name := range s.goodNames() {
		s.readMailer(name, &problems, l)
	}
	s.check(&problems)
	warnings := append(s.unknown(os.Environ()), s.warnings(problems)...)
	return s, warnings, problems.err()
}

// readable returns the fields that these settings read: of a mailer that is not the
// default one, those that each mailer has.
func (s *Settings) readable() []field {
	if s.Using == "" {
		return fields(s)
	}
	return mailerFields(s, s.Using)
}

// decode fills the fields from the environment, and says which variables are set.
func (s *Settings) decode(problems *Problems, l Loader) (set map[string]bool) {
	set = map[string]bool{}
	for _, f := range s.readable() {
		set[f.name] = f.isSet()
		if err := l.declared(f, f.decode(set[f.name])); err != nil {
			problems.add(f.name, "%v", err)
			set[f.name] = false
			_ = f.decode(false) // a default, which a test holds to be readable
		}
	}
	return set
}

// origin is where Load had a value from, and how Describe shows it.
type origin struct {
	source Source
	value  string
}

// remember notes the source of some of the fields.
func (s *Settings) remember(source Source, some func(field) bool) {
	for _, f := range s.readable() {
		if some(f) {
			s.read[f.name] = origin{source: source, value: f.show()}
		}
	}
}

// Default returns the settings of an empty environment.
func Default() Settings {
	var s Settings
	for _, f := range fields(&s) {
		_ = f.decode(false)
	}
	return s
}

// normalise replaces other people's names of a thing by ours.
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

// CanonicalBackend returns the short name of one of Django's backends, written as its
// dotted path, and any other name as it is.
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
