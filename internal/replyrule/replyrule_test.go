package replyrule

import (
	"strings"
	"testing"
)

func TestRule_Matches(t *testing.T) {
	for _, tt := range []struct {
		rule     string
		code     int
		enhanced string
		text     string
		want     bool
	}{
		{"550 5.4.5", 550, "5.4.5", "Daily limit exceeded", true},
		{"550 5.4.5", 554, "5.4.5", "Daily limit exceeded", false},
		{"550 5.4.5", 550, "5.4.6", "", false},
		{"550 5.4.5", 550, "", "", false},
		{"550", 550, "5.1.1", "no such user", true},
		{"550", 551, "", "", false},
		{"5.1.90", 554, "5.1.90", "", true},
		{" 554  5.7.0 *Too  many* ", 554, "5.7.0", "Sorry, too\tmany messages", true},
		{"554 too many", 554, "5.7.0", "Sorry, TOO MANY", true},
		{"554 too many", 554, "5.7.0", "Sorry, too much", false},
		{"daily*exceeded", 550, "5.7.1", "your daily quota is exceeded", true},
		{"daily*exceeded", 550, "5.7.1", "exceeded daily", false},
		{"daily limit", 450, "4.7.1", "daily limit", false}, // temporary anyway
		{"*100 messages an hour", 552, "", "Only 100 messages an hour", true},
		{"550 *", 550, "", "", true},
	} {
		r, err := Parse(tt.rule)
		if err != nil {
			t.Errorf("%q: %v", tt.rule, err)
			continue
		}
		if got := r.Matches(tt.code, tt.enhanced, tt.text); got != tt.want {
			t.Errorf("%q of %d %s %s: got %v", tt.rule, tt.code, tt.enhanced, tt.text, got)
		}
	}
}

// TestParse_refuses: what cannot be meant is refused with what is wrong with it.
func TestParse_refuses(t *testing.T) {
	for rule, want := range map[string]string{
		"":              "empty",
		" ":             "empty",
		"*":             "every refusal",
		"* **":          "every refusal",
		"450":           "temporary already",
		"451 4.4.5":     "temporary already",
		"550 4.4.5":     "temporary already",
		"250":           "no refusal",
		"5.4":           "neither",
		"55x":           "neither",
		"550 5.4":       "neither",
		"5.7.*":         "neither",
		"550 2.0.0":     "no refusal",
		"550 5.4.5.6 x": "neither",
		"5500":          "neither",
	} {
		if r, err := Parse(rule); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %+v, %v; want %q", rule, r, err, want)
		}
	}
}
