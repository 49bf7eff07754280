package httpapi

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// fromNow is what is understood of the natural language that Resend lets clients write times in: how long from now.
var fromNow = regexp.MustCompile(`^in (\d{1,6}|an?) ?(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|weeks?)$`)

// units are how long the units are, by their first letters.
var units = map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}

// when reads a time: RFC 3339, or how long from now.
func when(text string, now time.Time) (time.Time, *apiError) {
	const fieldName = "scheduled_at"
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	m := fromNow.FindStringSubmatch(strings.ToLower(strings.Join(strings.Fields(text), " ")))
	if m == nil {
		return time.Time{}, notSupported(fieldName, strconv.Quote(short(text))+" is no time that is understood here: write one such as 2026-12-24T18:00:00Z (RFC 3339, with its zone), or how long from now, such as in 90 min")
	}
	n := 1
	if m[1][0] != 'a' {
		n, _ = strconv.Atoi(m[1])
	}
	return now.Add(time.Duration(n) * units[m[2][0]]), nil
}

// short is the beginning of a text, for an error.
func short(text string) string {
	const most = 80
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}
