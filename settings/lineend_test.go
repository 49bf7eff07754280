package settings

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// A line end in any variable is named: as what is wrong where it could have an effect, as a warning where it has none.
func TestLoad_lineEnds(t *testing.T) {
	values := map[string]string{
		"EMAIL_URL": "smtp://mx.example.com", "EMAIL_M_URL": "smtp://HUNTER2@mx.example.com", "REDIS_URL": "redis://:HUNTER2@redis.example.com/0", "EMAIL_MAILERS": "m",
		"EMAIL_HTTP_ADDR": "127.0.0.1:0", "EMAIL_USE_TLS": "true", "EMAIL_PORT": "587", "EMAIL_HOST": "mx.example.com",
		"EMAIL_HOST_PASSWORD": "HUNTER2", "EMAIL_HTTP_PASSWORD": "HUNTER2", "EMAIL_HTTP_TOKEN": "HUNTER2", "ADMINS": "ann@example.com", "MANAGERS": "ann@example.com",
	}
	var s Settings
	all := slices.Concat(fields(&s), mailerFields(&s, "m"))
	seen := 0
	for _, f := range all {
		value, ok := values[f.name]
		if !ok {
			value = f.tagDefault(t)
		}
		for _, tt := range []struct{ value, where string }{{value + "\n", "at its end"}, {value + "\r\n", "at its end"}, {"\n" + value, "at its beginning"}, {value + "\n" + value, "in the middle"}} {
			setenv(t, map[string]string{"EMAIL_MAILERS": "m", "EMAIL_M_HOST": "mx.example.com"})
			t.Setenv(f.name, tt.value)
			_, warnings, err := Load()
			var problems Problems
			errors.As(err, &problems)
			said := strings.Contains(err2text(err), f.name+": has a line end "+tt.where)
			warned := slices.Contains(warnings, f.name+": has a line end in it, which has no effect")
			if f.isList() {
				said = warned || problems.has(f.name) // the entries are what they are without it, or are no such entries
			}
			if !said || strings.Contains(err2text(err), "HUNTER2") {
				t.Errorf("%s=%q: %v, warnings %q", f.name, tt.value, err, warnings)
			}
			seen++
		}
	}
	if seen < 200 {
		t.Errorf("only %d values tried", seen)
	}
}

func err2text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// tagDefault is a value that the field takes.
func (f field) tagDefault(t *testing.T) string {
	t.Helper()
	if def, _ := f.tag("default"); def != "" {
		return strings.TrimSpace(def)
	}
	return "x"
}
