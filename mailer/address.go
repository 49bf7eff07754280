package mailer

import "strings"

// Address returns a display name and an address as a message takes them, in FromEmail, To and the
// other fields: Address("Doe, Ann", "ann@example.com") is `"Doe, Ann" <ann@example.com>`. The name
// is in quotes where it has characters that mean something else in an address, such as commas, and
// is always read back as it was given; blanks around it are dropped. Without a name it is the
// address alone.
//
// Address checks nothing. A name with a line end or another control character, and an address that
// is none, are refused with the message (Validate), which names the field.
func Address(name, address string) string {
	name, address = strings.Trim(name, " \t"), strings.Trim(address, " \t")
	if name == "" {
		return address
	}
	return quotedName(name) + " <" + address + ">"
}

// quotedName puts a name in quotes (RFC 5322, 3.2.4) unless it can be read in one way only without
// them: words of letters, digits and what atoms may have beside them, with single blanks in between. "=?" begins
// what could be taken for an encoded word.
func quotedName(name string) string {
	special := strings.ContainsAny(name, `()<>[]:;@\,."`) || strings.Contains(name, "=?")
	if !special && !strings.Contains(name, "  ") && !strings.Contains(name, "\t") {
		return name
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
}
