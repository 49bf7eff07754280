package interop

import (
	"bytes"
	"encoding/json"
	"net/mail"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

// python is Debian's own, for which python3-django is installed; another python3
// may come first in PATH.
const python = "/usr/bin/python3"

// verdict is what django_oracle.py says of one case.
type verdict struct {
	Name    string
	Refused string
	Django  *meaning
	Ours    *meaning
}

type meaning struct {
	Fields     map[string]any
	Tree       map[string]any
	Defects    []string
	Recipients []string
}

// TestDjango compares what our messages mean with what Django's mean. Where
// Django is wrong the case says which rule of its behaviour is not followed.
func TestDjango(t *testing.T) {
	if err := exec.CommandContext(t.Context(), python, "-c", "import django").Run(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("needs Django for " + python + ": apt-get install python3-django")
		}
		t.Skip("needs Django for " + python + ": apt-get install python3-django")
	}
	cases := append(handWritten(), generated()...)
	verdicts := judge(t, cases)
	if len(verdicts) != len(cases) {
		t.Fatalf("got %d verdicts for %d cases", len(verdicts), len(cases))
	}
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) { compare(t, c, verdicts[i]) })
	}
}

func judge(t *testing.T, cases []djangoCase) []verdict {
	t.Helper()
	var in bytes.Buffer
	enc := json.NewEncoder(&in)
	for _, c := range cases {
		var rendered bytes.Buffer
		if _, err := c.message.WriteTo(&rendered); err != nil && !c.weRefuse {
			t.Fatalf("%s: %v", c.name, err)
		}
		err := enc.Encode(map[string]any{"name": c.name, "message": c.message, "rendered": rendered.Bytes()})
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), python, "django_oracle.py")
	cmd.Stdin = &in
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("django_oracle.py: %v\n%s", err, stderr.String())
	}
	var verdicts []verdict
	for line := range bytes.Lines(out) {
		var v verdict
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatal(err)
		}
		verdicts = append(verdicts, v)
	}
	return verdicts
}

// compare wants the same meaning, or, where Django is known to be wrong, another one:
// an exception that is not needed is taken for a mistake.
func compare(t *testing.T, c djangoCase, v verdict) {
	t.Helper()
	if c.weRefuse {
		if v.Refused != "" {
			t.Errorf("Django refuses it too (%s): rule %s is no exception here", v.Refused, c.exception)
		}
		return
	}
	differences := differences(c, v)
	switch {
	case c.exception == "":
		for _, d := range differences {
			t.Error(d)
		}
	case len(differences) == 0:
		t.Errorf("there is no difference: rule %s is no exception here", c.exception)
	}
}

func differences(c djangoCase, v verdict) []string {
	if v.Refused != "" {
		return []string{"Django refuses it: " + v.Refused}
	}
	var all []string
	report := func(what string, ours, theirs any) {
		if !reflect.DeepEqual(ours, theirs) {
			o, _ := json.MarshalIndent(ours, "", " ")
			d, _ := json.MarshalIndent(theirs, "", " ")
			all = append(all, what+": ours:\n"+string(o)+"\nDjango's:\n"+string(d))
		}
	}
	report("fields", v.Ours.Fields, v.Django.Fields)
	report("tree", v.Ours.Tree, v.Django.Tree)
	report("recipients", c.message.Recipients(), unique(v.Django.Recipients))
	if len(v.Ours.Defects) > 0 {
		all = append(all, "Python finds defects: "+strings.Join(v.Ours.Defects, ", "))
	}
	return all
}

// unique drops repetitions, which Django keeps (E6): a server would deliver twice.
func unique(list []string) []string {
	var all []string
	for _, s := range list {
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// TestDjangoCasesAreMail keeps the cases honest where Django is not installed.
func TestDjangoCasesAreMail(t *testing.T) {
	for _, c := range append(handWritten(), generated()...) {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			_, err := c.message.WriteTo(&b)
			if c.weRefuse {
				if !mailer.IsBadInput(err) {
					t.Errorf("got %v, want bad input", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := mail.ReadMessage(&b); err != nil {
				t.Error(err)
			}
		})
	}
}
