package rate

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestParseLimits(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, tt := range []struct {
		text string
		want Limits
		back string // as it is written again, text if it is ""
	}{
		{"200/s", Limits{{200, time.Second, 1}}, ""},
		{"1000/h", Limits{{1000, time.Hour, 0}}, ""},
		{"30/m burst=5", Limits{{30, time.Minute, 5}}, ""},
		{"50000/d", Limits{{50000, day, 0}}, ""},
		{"50000/d burst=1", Limits{{50000, day, 1}}, ""},
		{"14/s burst=1, 50000/d ,", Limits{{14, time.Second, 1}, {50000, day, 0}}, "14/s, 50000/d"},
		{"  30/m   burst=5  ,1/d", Limits{{30, time.Minute, 5}, {1, day, 0}}, "30/m burst=5, 1/d"},
		{"", nil, ""},
	} {
		got, err := ParseLimits(tt.text)
		if err != nil || len(got) != len(tt.want) {
			t.Errorf("%q: %v, %v", tt.text, got, err)
			continue
		}
		for i := range got {
			if got[i] != tt.want[i] {
				t.Errorf("%q: %+v, want %+v", tt.text, got[i], tt.want[i])
			}
		}
		back := tt.back
		if back == "" {
			back = tt.text
		}
		if got.String() != back {
			t.Errorf("%q is written as %q", tt.text, got)
		}
	}
}

// What is wrong is named, all of it.
func TestParse_bad(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"200":                   "a slash and s, m, h or d",
		"200/w":                 "a slash and s, m, h or d",
		"200/S":                 "a slash and s, m, h or d",
		"/s":                    "before the slash",
		"0/s":                   "before the slash",
		"-1/s":                  "before the slash",
		"1.5/s":                 "before the slash",
		"9999999999/s":          "before the slash",
		"1/s burst":             "only burst=",
		"1/s burst=1 burst=2":   "only burst=",
		"1/s burst=0":           "burst= has to be",
		"1/s burst=x":           "burst= has to be",
		"1/s, 1/s":              "there twice",
		"1/s\n2/m":              "only burst=",
		"gmail.com:20/s":        "before the slash",
		"9223372036854775808/s": "before the slash",
	} {
		_, err := ParseLimits(text)
		if bad := new(Error); !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	_, err := ParseLimits("5/x, 10/s, y")
	if err == nil || !strings.Contains(err.Error(), `"5/x"`) || !strings.Contains(err.Error(), `"y"`) {
		t.Errorf("of two only: %v", err)
	}
	for text, want := range map[string]string{
		"20/s":                "a domain, or *",
		"gmail.com":           "a domain, or *",
		"gmail.com:":          "is empty",
		"gmail.com:20":        "a slash",
		"ann@gmail.com:20/s":  "a domain, or *",
		"*.com:20/s":          "a domain, or *",
		":20/s":               "a domain, or *",
		"a.com:1/s,A.com:1/s": "there twice",
	} {
		_, err := ParseDomains(text)
		if bad := new(Error); !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestDomains_Of(t *testing.T) {
	t.Parallel()
	d, err := ParseDomains("Gmail.com.:20/s, gmail.com:1000/h,*:50/s burst=100")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := d.String(), "gmail.com:20/s, gmail.com:1000/h, *:50/s burst=100"; got != want {
		t.Errorf("written as %q, want %q", got, want)
	}
	if got := d.Of("gmail.com").String(); got != "20/s, 1000/h" {
		t.Errorf("gmail.com has %q", got)
	}
	if got := d.Of("example.org").String(); got != "50/s burst=100" {
		t.Errorf("another one has %q", got)
	}
	if got := d[:2].Of("example.org"); got != nil {
		t.Errorf("one that is not named has %v", got)
	}
}

func TestLimits_Within(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"": 0, "200/s": 12000, "30/m": 30, "10/h burst=2": 1, "10/h": 10, "5000/h, 200/s": 5000, "50000/d, 1/s": 60} {
		l, err := ParseLimits(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Within(time.Minute); got != want {
			t.Errorf("%q: %d in a minute, want %d", text, got, want)
		}
	}
}

func TestRates_Check(t *testing.T) {
	t.Parallel()
	good := Rates{Messages: Limits{{200, time.Second, 1}}, Connections: 3, Domains: Domains{{"*", Limit{1, time.Hour, 0}}}}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, r := range map[string]Rates{
		"none at all":      {Messages: Limits{{}}},
		"no period":        {Recipients: Limits{{1, 0, 1}}},
		"negative burst":   {Messages: Limits{{1, time.Second, -1}}},
		"connections":      {Connections: -1},
		"that of a domain": {Domains: Domains{{"*", Limit{}}}},
	} {
		if bad := new(Error); !errors.As(r.Check(), &bad) {
			t.Errorf("%s: %v", name, r.Check())
		}
	}
}
