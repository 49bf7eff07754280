package settings

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestTags(t *testing.T) {
	s, warnings := load(t, map[string]string{"EMAIL_METRICS_TAGS": "invoice, Grüße aus Köln,,invoice,news"})
	if want := (Tags{"invoice", "Grüße aus Köln", "news"}); !slices.Equal(s.HTTP.MetricsTags, want) || len(warnings) > 0 {
		t.Errorf("got %q, %q, want %q", s.HTTP.MetricsTags, warnings, want)
	}
	var many []string
	for i := range maxTags + 1 {
		many = append(many, fmt.Sprint("t", i))
	}
	for name, tt := range map[string]struct{ give, want string }{
		"the rest":      {"a,other", "leave it out"},
		"too long":      {strings.Repeat("x", maxTag+1), "is no tag"},
		"not printable": {"a\u202eb", "is no tag"},
		"control":       {"a\x01b", "is no tag"},
		"not UTF-8":     {"a\xffb", "is no tag"},
		"one too many":  {strings.Join(many, ","), "more than 50 tags"},
	} {
		if got := lines(t, map[string]string{"EMAIL_METRICS_TAGS": tt.give}); len(got) != 1 || !strings.HasPrefix(got[0], "EMAIL_METRICS_TAGS: ") || !strings.Contains(got[0], tt.want) {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
	if _, warnings := load(t, map[string]string{"EMAIL_METRICS_TAGS": strings.Join(many[1:], ",")}); len(warnings) > 0 {
		t.Error(warnings)
	}
}
