package settings

import (
	"encoding"
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
	s := Settings{read: map[string]origin{}, schemes: l.Schemes, producer: l.Producer}
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
	s.refuseUnread(&problems)
	s.check(&problems)
	warnings := append(s.unknown(os.Environ()), s.warnings(problems, l.Producer && s.Delivery.Backend == queueName)...)
	return s, warnings, problems.err()
}

// decode fills the fields from the environment, and returns which variables are set.
func (s *Settings) decode(problems *Problems, l Loader) (set map[string]bool) {
	set = map[string]bool{}
	for _, f := range s.readable() {
		set[f.name] = f.isSet()
		if file := f.file(); file != "" {
			s.decodeFile(f, file, set, problems, l)
			continue
		}
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

// decodeFile fills a field from its file. Whether one that cannot be read is a problem depends on what the program does.
func (s *Settings) decodeFile(f field, file string, set map[string]bool, problems *Problems, l Loader) {
	if set[f.name] {
		problems.add(f.fileVariable(), "%s is set too; leave out the one or the other", f.name)
	}
	text, err := readSecret(file)
	if err == nil {
		if err = l.fromText(f, text); err != nil {
			err = fmt.Errorf("%s: %w", file, err)
		}
	}
	set[f.name] = err == nil
	if err != nil {
		_, ofMailer := f.tag("mailer")
		s.unread = append(s.unread, unread{
			name: f.name, key: f.key, using: s.Using, ofMailer: ofMailer, ofWorker: f.ofWorker(), why: err.Error(),
		})
		_ = f.decode(false)
		return
	}
	s.read[f.name] = origin{source: FromFile, value: f.show(), file: file, text: NewSecret(text)}
}

// fromText sets a secret to the text of a file.
func (l Loader) fromText(f field, text string) error {
	if err := f.checkSecret(text); err != nil {
		return err
	}
	value := reflect.New(f.value.Type())
	u, ok := value.Interface().(encoding.TextUnmarshaler)
	if !ok {
		return errors.New("cannot be in a file") // a test holds that each can
	}
	err := u.UnmarshalText([]byte(text))
	if err == nil {
		f.value.Set(value.Elem())
	}
	return l.declared(f, err)
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
			twice = append(twice, s.Variable(name))
		}
	}
	if len(twice) > 0 {
		problems.add(s.Variable(urlVariable), "takes the place of %s; leave out the one or the other", strings.Join(twice, ", "))
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
	s.unread = append(s.unread, m.own.unread...)
	m.own.read, m.own.unread = nil, nil
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

// Reloaded is what Settings.Reload has found.
type Reloaded struct {
	Changed []string // the variables of the files (NAME_FILE) that say something else than before
	Restart []string // those among them that count after a restart only, such as REDIS_URL_FILE

	// Kept are the files that are wrong now. Their settings keep the value that they have.
	Kept Problems
}

// Reload reads the files of secrets again (EMAIL_HOST_PASSWORD_FILE and the like) and returns the settings with what they
// say now; s itself stays as it is. What the environment says, and what the program has changed after Load, is not read
// again. A file with a URL may name another server and another user, but not another backend.
//
// A worker calls it at SIGHUP. A Mailer that delivers by itself (backends.Registry.Mailer) calls it for each call. A program
// that keeps a backend open makes a new one of what Reload returns.
func (s Settings) Reload() (Settings, Reloaded) {
	var r Reloaded
	fromFile := func(o origin) bool { return o.source == FromFile }
	if !slices.ContainsFunc(slices.Collect(maps.Values(s.read)), fromFile) {
		return s, r
	}
	l := Loader{Producer: s.producer, Schemes: s.schemes}
	s.reload(l, &r)
	s.named = slices.Clone(s.named)
	for i := range s.named {
		own := &s.named[i].own
		own.read = s.read
		own.reload(l, &r)
		s.read, own.read = own.read, nil
	}
	return s, r
}

// reload reads the files of one mailer again, or of the default one and all else.
func (s *Settings) reload(l Loader, r *Reloaded) {
	for _, f := range s.readable() {
		o := s.read[f.name]
		if o.source != FromFile || f.reveal() != strings.TrimSpace(o.text.Reveal()) && f.reveal() != o.text.Reveal() {
			continue
		}
		text, err := readSecret(o.file)
		if err == nil && text == o.text.Reveal() {
			continue
		}
		next := *s
		next.read = maps.Clone(s.read)
		if err == nil {
			err = next.replace(f.name, text, l)
		}
		if err != nil {
			r.Kept.add(f.fileVariable(), "%v. What was read before is kept", err)
			continue
		}
		*s = next
		r.Changed = append(r.Changed, f.fileVariable())
		if _, ofMailer := f.tag("mailer"); !ofMailer && !f.ofWorker() {
			r.Restart = append(r.Restart, f.fileVariable())
		}
	}
}

// replace puts another text in the place of a secret.
func (s *Settings) replace(name, text string, l Loader) error {
	all := s.readable()
	f := all[slices.IndexFunc(all, func(f field) bool { return f.name == name })]
	before := s.Delivery.URL
	if err := l.fromText(f, text); err != nil {
		return err
	}
	s.read[name] = origin{source: FromFile, value: f.show(), file: s.read[name].file, text: NewSecret(text)}
	if f.key == urlVariable {
		return s.replaceURL(before)
	}
	return nil
}

// replaceURL fills the settings anew that the mailer's URL takes the place of.
func (s *Settings) replaceURL(before MailURL) error {
	if before.target == nil || before.target.backend != s.Delivery.URL.target.backend {
		return errors.New("is for another backend than before, which takes a restart")
	}
	for _, f := range s.readable() {
		if s.read[f.name].source != FromURL {
			continue
		}
		delete(s.read, f.name)
		if f.key == userVariable || f.key == passwordVariable { // it may have none any more
			f.value.SetZero()
		}
	}
	var problems Problems
	delivery, worker := s.Delivery.Backend, s.Worker.Backend
	s.applyURL(&problems)
	s.Delivery.Backend, s.Worker.Backend = delivery, worker
	if len(problems) > 0 {
		return errors.New(problems[0].Text)
	}
	return nil
}
