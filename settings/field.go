package settings

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"
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

// isSet says whether the environment sets the field. An empty variable does not,
// except where empty means something (the tag empty:"keep").
func (f field) isSet() bool {
	v, ok := os.LookupEnv(f.name)
	if keep, _ := f.tag("empty"); keep == "keep" {
		return ok
	}
	return strings.TrimSpace(v) != ""
}

// decode fills the field from the environment, or with its default if it is not set.
//
// envconfig ends with the first variable it cannot read. To hear of all of them, it is
// given one field at a time.
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
		return f.explain(err)
	}
	f.value.Set(one.Elem().Field(0))
	return nil
}

// explain says in plain words what the field takes. Our own types do that themselves.
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

// check reports what is wrong with the value of this field alone.
func (f field) check(problems *Problems) {
	switch v := f.value.Interface().(type) {
	case string:
		f.checkText(problems, v)
	case Secret:
		if hasControl(v.Reveal()) {
			problems.add(f.name, "holds a control character; is there a line end in it?")
		}
	case Addresses:
		f.checkText(problems, v.String())
		for _, address := range v {
			if err := checkAddress(address); err != nil {
				problems.add(f.name, "%v", err)
			}
		}
	case int:
		f.checkRange(problems, int64(v), parseInt)
	case Size:
		f.checkRange(problems, int64(v), parseInt)
	case time.Duration:
		f.checkRange(problems, int64(v), parseBound)
	case Seconds:
		f.checkRange(problems, int64(v), parseBound)
	}
}

func parseInt(bound string) int64 {
	n, _ := strconv.ParseInt(bound, 10, 64)
	return n
}

func parseBound(bound string) int64 {
	d, _ := time.ParseDuration(bound)
	return int64(d)
}

func (f field) checkText(problems *Problems, text string) {
	if hasControl(text) {
		problems.add(f.name, "%q holds a control character; is there a line end in it?", text)
		return
	}
	oneof, ok := f.tag("oneof")
	if !ok {
		return
	}
	allowed := strings.Split(oneof, ",")
	for _, a := range allowed {
		if text == a {
			return
		}
	}
	problems.add(f.name, "%q is not allowed; it has to be %s", text, strings.Join(allowed, " or "))
}

func (f field) checkRange(problems *Problems, n int64, bound func(string) int64) {
	low, hasMin := f.tag("min")
	high, hasMax := f.tag("max")
	switch {
	case hasMin && hasMax && (n < bound(low) || n > bound(high)):
		problems.add(f.name, "%s is out of range; it has to be %s to %s", f.show(), low, high)
	case hasMin && n < bound(low):
		problems.add(f.name, "%s is too small; it has to be at least %s", f.show(), low)
	}
}
