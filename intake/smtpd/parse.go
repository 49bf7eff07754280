package smtpd

import (
	"strconv"
	"strings"

	"github.com/mailpouch/mailpouch/mailer"
)

// cutVerb cuts a command line into its verb, in capitals, and the rest.
func cutVerb(line string) (verb, rest string) {
	verb, rest, _ = strings.Cut(line, " ")
	return strings.ToUpper(verb), strings.Trim(rest, " ")
}

// cutPath takes "FROM:" or "TO:" and a path (RFC 5321, 4.1.2) off the beginning of arg. A source route in the path is left out, as RFC 5321,
// 4.1.1.3, has it. As with other servers there may be blanks before the path, and no angle brackets around it: old programs and devices
// write it so.
func cutPath(arg, prefix string) (path, rest string, ok bool) {
	if len(arg) < len(prefix) || !strings.EqualFold(arg[:len(prefix)], prefix) {
		return "", "", false
	}
	arg = strings.TrimLeft(arg[len(prefix):], " ")
	if !strings.HasPrefix(arg, "<") {
		path, rest, _ = strings.Cut(arg, " ")
		return path, rest, path != "" && !strings.ContainsAny(arg, "<>")
	}
	end := pathEnd(arg)
	if end < 0 {
		return "", "", false
	}
	path, rest = arg[1:end], arg[end+1:]
	if rest != "" && rest[0] != ' ' {
		return "", "", false
	}
	if strings.HasPrefix(path, "@") {
		if _, path, ok = strings.Cut(path, ":"); !ok {
			return "", "", false
		}
	}
	return path, rest, true
}

// pathEnd is where the bracket is that closes the one at the beginning, or -1. One in a quoted string closes nothing.
func pathEnd(s string) int {
	quoted := false
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == '>' && !quoted:
			return i
		}
	}
	return -1
}

// mailbox returns an address of the envelope as the queue takes it, with its domain in punycode.
func mailbox(path string) (addr string, ok bool) {
	local, domain := path, ""
	if at := strings.LastIndexByte(path, '@'); at >= 0 {
		local, domain = path[:at], path[at+1:]
	}
	quoted := len(local) >= 2 && local[0] == '"' && local[len(local)-1] == '"'
	if domain == "" || !quoted && strings.ContainsAny(local, " \"(),:;<>@[\\]") || strings.ContainsAny(domain, " \"(),;<>\\") {
		return "", false // what else mailer reads is no address of SMTP
	}
	e, err := (&mailer.EmailMessage{FromEmail: path}).Envelope()
	return e.From, err == nil
}

// isASCII reports whether s has no byte above 127.
func isASCII(s string) bool { return strings.IndexFunc(s, func(r rune) bool { return r > '~' }) < 0 }

// mailParams are the parameters of MAIL.
type mailParams struct {
	size uint64 // 0 if it was not given
	utf8 bool
}

// parseMail reads the parameters of MAIL. What is not offered is 555 (RFC 5321, 4.1.1.11).
func parseMail(rest string, auth bool) (p mailParams, r reply) {
	seen := map[string]bool{}
	for param := range strings.FieldsSeq(rest) {
		name, value, hasValue := strings.Cut(param, "=")
		name = strings.ToUpper(name)
		if seen[name] {
			return p, answer("501 5.5.4", "%s is there twice", name)
		}
		seen[name] = true
		switch {
		case name == "SIZE":
			var err error
			if p.size, err = strconv.ParseUint(value, 10, 63); err != nil {
				return p, "501 5.5.4 SIZE takes a number"
			}
		case name == "SMTPUTF8" && !hasValue:
			p.utf8 = true
		case name == "BODY" && (strings.EqualFold(value, "7BIT") || strings.EqualFold(value, "8BITMIME")):
		case name == "AUTH" && auth && value != "": // who is said to have sent it (RFC 4954, 5): we know who hands it in
		default:
			return p, answer("555 5.5.4", "Unsupported parameter: %s", param)
		}
	}
	return p, ""
}

// parseChunk reads what stands behind BDAT (RFC 3030, 2).
func parseChunk(arg string) (size uint64, last, ok bool) {
	digits, rest, _ := strings.Cut(arg, " ")
	size, err := strconv.ParseUint(digits, 10, 62)
	last = strings.EqualFold(strings.Trim(rest, " "), "LAST")
	return size, last, err == nil && (last || rest == "")
}
