package settings

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"
)

// prefix is what the names of our own variables begin with, and of each mailer's.
const prefix = "EMAIL_"

// Variables that rules and texts name.
const (
	urlVariable          = "EMAIL_URL"
	backendVariable      = "EMAIL_BACKEND"
	queueBackendVariable = "EMAIL_QUEUE_BACKEND"
	namesVariable        = "EMAIL_MAILERS"
	membersVariable      = "EMAIL_MEMBERS"
	policyVariable       = "EMAIL_POLICY"
	overrideVariable     = "EMAIL_OVERRIDE_RECIPIENTS"
	allowedVariable      = "EMAIL_ALLOWED_RECIPIENTS"
	userVariable         = "EMAIL_HOST_USER"
	oauthVariable        = "EMAIL_OAUTH"
	passwordVariable     = "EMAIL_HOST_PASSWORD" //nolint:gosec // the name of a variable
)

// field is one setting: a field of Settings whose tag names a variable.
type field struct {
	group string
	name  string // of the variable
	key   string // of the variable that sets this for the default mailer
	def   reflect.StructField
	value reflect.Value // addressable
}

// fields returns all settings, in the order in which Settings declares them.
func fields(s *Settings) []field {
	var all []field
	groups := reflect.ValueOf(s).Elem()
	for i := range groups.NumField() {
		group, ok := groups.Type().Field(i).Tag.Lookup("group")
		if !ok {
			continue
		}
		v := groups.Field(i)
		for j := range v.NumField() {
			def := v.Type().Field(j)
			name := def.Tag.Get("envconfig")
			all = append(all, field{group: group, name: name, key: name, def: def, value: v.Field(j)})
		}
	}
	return all
}

func (f field) tag(key string) (string, bool) { return f.def.Tag.Lookup(key) }

// ofWorker reports whether only a worker uses the field: for its pages, and for what it takes in and posts. It uses what is in the
// files of these without a restart.
func (f field) ofWorker() bool {
	return f.group == "Pages" || f.group == "Intake" || f.group == "Events"
}

// isSet reports whether the environment sets the field. An empty variable does not,
// except where empty means something (the tag empty:"keep").
func (f field) isSet() bool {
	v, ok := os.LookupEnv(f.name)
	if keep, _ := f.tag("empty"); keep == "keep" {
		return ok
	}
	return strings.TrimSpace(v) != ""
}

// secret is the type of a setting that nobody may see. Each may be in a file.
type secret interface{ Reveal() string }

// fileVariable is the variable that names a file with the field's value, "" if it is no secret.
func (f field) fileVariable() string {
	if _, ok := f.value.Interface().(secret); !ok {
		return ""
	}
	return f.name + fileSuffix
}

// variablesOf returns the names of all variables that fields read.
func variablesOf(all []field) []string {
	var names []string
	for _, f := range all {
		names = append(names, f.name)
		if file := f.fileVariable(); file != "" {
			names = append(names, file)
		}
	}
	return names
}

// file is the file that has the field's value, "" if none is named.
func (f field) file() string {
	name := f.fileVariable()
	if name == "" || strings.TrimSpace(os.Getenv(name)) == "" {
		return ""
	}
	return os.Getenv(name)
}

// reveal is a secret's text, "" for what is no secret.
func (f field) reveal() string {
	if v, ok := f.value.Interface().(secret); ok {
		return v.Reveal()
	}
	return ""
}

// hasLines reports whether the value may be several lines, as a key in PEM is (the tag lines:"many").
func (f field) hasLines() bool {
	lines, _ := f.tag("lines")
	return lines == "many"
}

// checkSecret refuses what cannot be the value of a secret. The error repeats none of it.
func (f field) checkSecret(text string) error {
	if !f.hasLines() {
		if err := lineEndIn(text); err != nil {
			return err
		}
	} else {
		text = strings.NewReplacer("\r", "", "\n", "", "\t", "").Replace(text)
	}
	if hasControl(text) {
		return errors.New("holds a control character, or is not UTF-8")
	}
	return nil
}

// decode fills the field from the environment, or with its default if it is not set.
//
// envconfig stops at the first variable that it cannot read. It is given one field at a
// time, so that all of them are found.
func (f field) decode(set bool) error {
	name := f.name
	if !set {
		// No variable has an "=" in its name, so envconfig takes the default even
		// where the variable is there and empty.
		name = "="
	}
	tag := strings.Replace(string(f.def.Tag), `envconfig:"`+f.key+`"`, `envconfig:"`+name+`"`, 1)
	one := reflect.New(reflect.StructOf([]reflect.StructField{
		{Name: f.def.Name, Type: f.def.Type, Tag: reflect.StructTag(tag)},
	}))
	if err := envconfig.Process("", one.Interface()); err != nil {
		if link := linked(f.name, os.Getenv(f.name)); link != "" {
			return errors.New(link)
		}
		return f.explain(err)
	}
	f.value.Set(one.Elem().Field(0))
	return nil
}

// lineEnd is the error of a variable with the end of a line in it. It has no meaning in any of them, is not seen in most of
// what shows it, and would be blamed on something else: a password that is refused, a URL that is none. In a list it is left to the entries,
// which are trimmed.
func (f field) lineEnd(set bool) error {
	if !set || f.isList() || f.hasLines() {
		return nil
	}
	return lineEndIn(os.Getenv(f.name))
}

// isList reports whether the field has entries with white space allowed around them.
func (f field) isList() bool {
	switch f.value.Interface().(type) {
	case Hosts, Addresses, Queues, Names, Members, Mechanisms, Recipients, Allowed, List, Tags, Limits, DomainLimits, Listeners, Networks:
		return true
	}
	return false
}

// lineEndIn says where in a value there is the end of a line.
func lineEndIn(value string) error {
	inner := strings.Trim(value, "\r\n")
	switch {
	case strings.ContainsAny(inner, "\r\n"):
		return errors.New("has a line end in the middle: a setting is one line")
	case strings.HasSuffix(value, "\n") || strings.HasSuffix(value, "\r"):
		return errors.New("has a line end at its end, perhaps that of the file which it was read from: leave it out")
	case inner != value:
		return errors.New("has a line end at its beginning: leave it out")
	}
	return nil
}

// explain puts envconfig's error in plain words. Our own types have errors of their own.
func (f field) explain(err error) error {
	var parse *envconfig.ParseError
	if !errors.As(err, &parse) {
		return err
	}
	switch f.value.Interface().(type) {
	case bool:
		return fmt.Errorf("%q is neither true nor false", parse.Value)
	case int:
		return fmt.Errorf("%q is not a whole number", parse.Value)
	case time.Duration:
		return fmt.Errorf(`%q is not a duration, such as "30s", "5m" or "1h30m"`, parse.Value)
	}
	return parse.Err
}

// show writes the field's value for people, secrets redacted.
func (f field) show() string {
	switch v := f.value.Interface().(type) {
	case time.Duration:
		return showDuration(v)
	case Seconds:
		return showDuration(time.Duration(v))
	default:
		return fmt.Sprint(v)
	}
}

// showDuration drops the zeros of 1h0m0s.
func showDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// mailerFields returns the settings that every mailer has, each with the variable that the
// mailer of this name reads.
func mailerFields(s *Settings, name string) []field {
	var all []field
	for _, f := range fields(s) {
		if _, ok := f.tag("mailer"); ok {
			f.group, f.name = "mailer "+name, mailerVariable(name, f.key)
			all = append(all, f)
		}
	}
	return all
}

// shared reports whether a mailer that does not set the field has the default mailer's value.
func (f field) shared() bool {
	mode, _ := f.tag("mailer")
	return mode == "shared"
}

// mailerPrefix is what the variables of a mailer begin with.
func mailerPrefix(name string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_")) + "_"
}

// mailerVariable is the mailer's counterpart of a variable of the default mailer.
func mailerVariable(name, variable string) string {
	if name == "" {
		return variable
	}
	return mailerPrefix(name) + strings.TrimPrefix(variable, prefix)
}

// Variable returns the name of the variable that sets, for the mailer of these settings, what
// name (a variable of the default mailer, such as EMAIL_HOST) sets for the default mailer.
// Texts for people name that variable. It is the mailer's URL if that is where the value came
// from, NAME_FILE if it came from a file, and name itself if the mailer shares the default mailer's value.
func (s Settings) Variable(name string) string {
	own := s.ownVariable(name)
	if s.read[own].source == FromURL {
		own = mailerVariable(s.Using, urlVariable)
	}
	if s.read[own].source == FromFile {
		return own + fileSuffix
	}
	return own
}

// ownVariable is Variable for what is set by a variable of its own.
func (s Settings) ownVariable(name string) string {
	own := name
	for _, f := range mailerFields(&Settings{}, s.Using) {
		if f.key == name && s.Using != "" {
			if _, set := s.read[f.name]; set || !f.shared() {
				own = f.name
			}
		}
	}
	return own
}

// howTLS says how TLS is switched on.
func (s Settings) howTLS() string {
	if s.hasURL() {
		return "begin the URL with smtp+starttls:// or smtps://"
	}
	return "set " + s.Variable("EMAIL_USE_TLS") + " or " + s.Variable("EMAIL_USE_SSL")
}

// hasURL reports whether a URL names the server.
func (s Settings) hasURL() bool {
	t := s.Delivery.URL.target
	return t != nil && t.backend == "smtp"
}

// sets reports whether the environment has a value for a variable.
func (s Settings) sets(variable string) bool {
	_, set := s.read[variable]
	return set
}

// readable returns the fields that are read for these settings: all of them for the default
// mailer, those that every mailer has for another one.
func (s *Settings) readable() []field {
	if s.Using == "" {
		return fields(s)
	}
	return mailerFields(s, s.Using)
}

// remember notes where the values of some of the fields came from.
func (s *Settings) remember(source Source, some func(field) bool) {
	for _, f := range s.readable() {
		if some(f) && s.read[f.name].source != FromFile {
			s.read[f.name] = origin{source: source, value: f.show()}
		}
	}
}
