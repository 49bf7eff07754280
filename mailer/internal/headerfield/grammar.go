package headerfield

// Grammar is how the value of a field is built.
type Grammar uint8

// The grammars. All but Unstructured allow comments.
const (
	Unstructured Grammar = iota // text: what no RFC gives another grammar
	Addresses                   // mailboxes and groups (RFC 5322, 3.4)
	Address                     // one mailbox
	MessageID                   // one ID (RFC 5322, 3.6.4)
	MessageIDs                  // IDs with white space between them
	Date                        // a date and a time (RFC 5322, 3.3)
	URLs                        // URLs in angle brackets, with commas between them (RFC 2369)
	ListID                      // a name, and an ID in angle brackets (RFC 2919)
	Phrases                     // words for people, with commas between them (RFC 5322, 3.6.5)
	Tokens                      // words for programs
)

// grammars has the fields that are not Unstructured, in lower case. Nobody changes it. Content-Type
// and the other fields of MIME are not in it: they are made from the parts of a message.
var grammars = map[string]Grammar{
	// RFC 5322, 3.6.2, 3.6.3 and 3.6.6
	"from":            Addresses,
	"sender":          Address,
	"reply-to":        Addresses,
	"to":              Addresses,
	"cc":              Addresses,
	"resent-from":     Addresses,
	"resent-sender":   Address,
	"resent-to":       Addresses,
	"resent-cc":       Addresses,
	"resent-reply-to": Addresses, // RFC 5322, 4.5.6

	"disposition-notification-to": Addresses, // RFC 8098, 2.1
	"author":                      Addresses, // RFC 9057
	"mail-followup-to":            Addresses, // of Mutt and others: no RFC
	"mail-reply-to":               Addresses,
	"return-receipt-to":           Addresses,
	"errors-to":                   Addresses,

	"message-id":          MessageID,  // RFC 5322, 3.6.4
	"resent-message-id":   MessageID,  // RFC 5322, 3.6.6
	"in-reply-to":         MessageIDs, // RFC 5322, 3.6.4
	"references":          MessageIDs,
	"original-message-id": MessageID,  // RFC 3297, 2.2
	"supersedes":          MessageIDs, // RFC 2156 and RFC 5536

	"date":        Date, // RFC 5322, 3.6.1
	"resent-date": Date, // RFC 5322, 3.6.6

	"list-help":        URLs, // RFC 2369, 3
	"list-subscribe":   URLs,
	"list-unsubscribe": URLs,
	"list-post":        URLs,
	"list-owner":       URLs,
	"list-archive":     URLs,
	"archived-at":      URLs,   // RFC 5064
	"list-id":          ListID, // RFC 2919

	"keywords": Phrases, // RFC 5322, 3.6.5

	"list-unsubscribe-post":  Tokens, // RFC 8058
	"auto-submitted":         Tokens, // RFC 3834
	"importance":             Tokens, // RFC 2156
	"priority":               Tokens,
	"sensitivity":            Tokens,
	"expires":                Tokens, // a date, but programs also write others
	"reply-by":               Tokens,
	"precedence":             Tokens, // no RFC
	"x-priority":             Tokens,
	"x-msmail-priority":      Tokens,
	"autocrypt":              Tokens,
	"received":               Tokens, // RFC 5322, 3.6.7
	"authentication-results": Tokens, // RFC 8601
	"mime-version":           Tokens, // RFC 2045, 4
	"dkim-signature":         Tokens, // RFC 6376
}

// longest is how many bytes the longest name in grammars has.
const longest = len("disposition-notification-to")

// Of returns the grammar of the field of that name, in any letter case.
func Of(name string) Grammar {
	var lower [longest]byte
	if len(name) > len(lower) {
		return Unstructured
	}
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	return grammars[string(lower[:len(name)])]
}

// HoldsAddresses reports whether readers see addresses in a field of that name. (They are never
// those of the envelope.)
func HoldsAddresses(name string) bool {
	g := Of(name)
	return g == Addresses || g == Address
}
