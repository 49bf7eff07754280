// Package replyrule reads the rules with which an operator calls a mail server's permanent refusals
// temporary. It is the one place that knows how such a rule is written: settings checks rules with it, and the
// smtp backend looks replies up.
package replyrule

import (
	"errors"
	"fmt"
	"strings"
)

// A Rule stands for some of the refusals of a server. A Rule that Parse returns stands for fewer than all.
type Rule struct {
	code     string   // "550", or "": any 5yz
	enhanced string   // "5.4.5", or "": any, or none
	text     []string // in lower case; they stand in the reply's text in this order, wherever
}

// Parse reads a rule: a reply code, an enhanced status code (RFC 3463), and a text, each of which may be left
// out, as in "550 5.4.5", "554 5.7.0 too many" and "daily limit*exceeded". The text may stand anywhere in that of
// the reply, in any letter case; a * in it stands for whatever is there. The error says what is wrong with a
// rule that cannot be meant.
func Parse(rule string) (Rule, error) {
	var r Rule
	words := strings.Fields(strings.ToLower(rule))
	if len(words) == 0 {
		return r, errors.New("an empty rule")
	}
	if isDigits(words[0], 3, 3) {
		if err := checkClass(words[0], rule); err != nil {
			return Rule{}, err
		}
		r.code, words = words[0], words[1:]
	}
	if len(words) > 0 && isEnhanced(words[0]) {
		if err := checkClass(words[0], rule); err != nil {
			return Rule{}, err
		}
		r.enhanced, words = words[0], words[1:]
	}
	if len(words) > 0 && isNearly(words[0]) {
		return Rule{}, fmt.Errorf("%q: %q is neither a reply code such as 550 nor an enhanced status code such as 5.4.5; if it is text, write *%[2]s",
			rule, words[0])
	}
	for piece := range strings.SplitSeq(strings.Join(words, " "), "*") {
		if piece = strings.TrimSpace(piece); piece != "" {
			r.text = append(r.text, piece)
		}
	}
	if r.code == "" && r.enhanced == "" && len(r.text) == 0 {
		return Rule{}, fmt.Errorf("%q would be every refusal: no message could fail for good", rule)
	}
	return r, nil
}

// checkClass accepts a code of the class that a rule can change.
func checkClass(code, rule string) error {
	switch code[0] {
	case '5':
		return nil
	case '4':
		return fmt.Errorf("%q: %s is temporary already", rule, code)
	}
	return fmt.Errorf("%q: %s is no refusal: those that are permanent begin with 5", rule, code)
}

// Matches reports whether a refusal is one that the rule stands for. enhanced is "" if it has none.
func (r Rule) Matches(code int, enhanced, text string) bool {
	if code/100 != 5 || r.code != "" && r.code != fmt.Sprint(code) || r.enhanced != "" && r.enhanced != enhanced {
		return false
	}
	text = strings.Join(strings.Fields(strings.ToLower(text)), " ")
	for _, piece := range r.text {
		_, rest, found := strings.Cut(text, piece)
		if !found {
			return false
		}
		text = rest
	}
	return true
}

// isEnhanced reports whether a word is written as an enhanced status code.
func isEnhanced(word string) bool {
	class, rest, _ := strings.Cut(word, ".")
	subject, detail, _ := strings.Cut(rest, ".")
	return isDigits(class, 1, 1) && isDigits(subject, 1, 3) && isDigits(detail, 1, 3)
}

// isNearly reports whether a word seems to be meant as a code: "5.4", "55x", "5.7.*".
func isNearly(word string) bool {
	return strings.Trim(word, "0123456789.x*") == "" && strings.ContainsAny(word[:1], "45") && len(word) > 1
}

func isDigits(word string, least, most int) bool {
	return len(word) >= least && len(word) <= most && strings.Trim(word, "0123456789") == ""
}
