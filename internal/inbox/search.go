package inbox

import (
	"slices"
	"strings"
	"unicode"

	"github.com/mailpouch/mailpouch/internal/catcher"
)

// search finds mails. All of its terms have to be in a mail, in any letter case.
type search []term

// term is a text, in lower case, and where it has to be: from, to, subject, or anywhere ("").
type term struct{ field, text string }

// parseSearch reads what a person writes: words, "several words" in quotes, and either with from:, to: or subject: before it.
func parseSearch(text string) search {
	var s search
	for text = strings.TrimSpace(strings.ToLower(text)); text != ""; text = strings.TrimSpace(text) {
		var t term
		for _, field := range []string{"from", "to", "subject"} {
			if rest, ok := strings.CutPrefix(text, field+":"); ok {
				t.field, text = field, strings.TrimLeft(rest, " ")
				break
			}
		}
		if rest, ok := strings.CutPrefix(text, `"`); ok {
			t.text, text, _ = strings.Cut(rest, `"`)
		} else if end := strings.IndexFunc(text, unicode.IsSpace); end >= 0 {
			t.text, text = text[:end], text[end:]
		} else {
			t.text, text = text, ""
		}
		if t.text != "" {
			s = append(s, t)
		}
	}
	return s
}

// find returns the mails that match, the newest first.
func (s search) find(kept []catcher.Message) []catcher.Message {
	found := slices.DeleteFunc(kept, func(m catcher.Message) bool { return !s.matches(m) })
	slices.Reverse(found)
	return found
}

func (s search) matches(m catcher.Message) bool {
	if len(s) == 0 {
		return true
	}
	d := catcher.Decode(m.Raw)
	lower := func(texts ...string) string { return strings.ToLower(strings.Join(texts, "\n")) }
	texts := map[string]string{
		"from":    lower(m.From, d.Header.Get("From")),
		"to":      lower(strings.Join(m.To, "\n"), d.Header.Get("To"), d.Header.Get("Cc")),
		"subject": lower(d.Header.Get("Subject")),
	}
	anywhere := []string{texts["from"], texts["to"]}
	for _, f := range d.Header {
		anywhere = append(anywhere, f.Value)
	}
	for _, p := range d.Parts {
		anywhere = append(anywhere, p.Filename)
		if p.Text {
			anywhere = append(anywhere, readable(p))
		}
	}
	texts[""] = lower(anywhere...)
	return !slices.ContainsFunc(s, func(t term) bool { return !strings.Contains(texts[t.field], t.text) })
}
