package mailer

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/mailpouch/mailpouch/mailer/internal/address"
	"github.com/mailpouch/mailpouch/mailer/internal/charset"
	"github.com/mailpouch/mailpouch/mailer/internal/headerfield"
	"github.com/mailpouch/mailpouch/mailer/internal/mimewriter"
)

// maxListURL is the longest URL in bytes: a line takes 998, and nothing of a URL can be on another one.
const maxListURL = 900

// The fields of ListUnsubscribe.
const (
	listUnsubscribe     = "List-Unsubscribe"
	listUnsubscribePost = "List-Unsubscribe-Post"
	precedence          = "Precedence"
)

// listHeaders are the fields of the header that ListUnsubscribe stands for.
func (m *EmailMessage) listHeaders() ([]namedHeader, error) {
	l := m.ListUnsubscribe
	if l == (ListUnsubscribe{}) {
		return nil, nil
	}
	for _, name := range []string{listUnsubscribe, listUnsubscribePost} {
		if _, field, ok := m.override(name); ok {
			return nil, &InvalidMessageError{Field: "list_unsubscribe", Reason: "cannot be given together with " + field}
		}
	}
	value, err := l.value()
	if err != nil {
		return nil, err
	}
	fields := []namedHeader{{listUnsubscribe, listUnsubscribe, value}}
	if l.OneClick {
		fields = append(fields, namedHeader{listUnsubscribePost, listUnsubscribePost, "List-Unsubscribe=One-Click"})
	}
	if _, _, ok := m.override(precedence); !ok {
		fields = append(fields, namedHeader{precedence, precedence, "bulk"})
	}
	return fields, nil
}

// value is that of List-Unsubscribe: the URL first, which is what a mail program prefers (RFC 2369, 2).
func (l ListUnsubscribe) value() (string, error) {
	var all []string
	if l.URL != "" || l.OneClick {
		if err := l.checkURL(); err != nil {
			return "", err
		}
		all = append(all, "<"+l.URL+">")
	}
	if l.Mailto != "" {
		link, err := l.mailto()
		if err != nil {
			return "", err
		}
		all = append(all, "<"+link+">")
	}
	return strings.Join(all, ", "), nil
}

func (l ListUnsubscribe) checkURL() error {
	const field = "list_unsubscribe.url"
	if err := checkText(field, l.URL, charset.WithoutTab); err != nil {
		return err
	}
	u, err := url.Parse(l.URL)
	switch {
	case l.OneClick && (err != nil || u.Scheme != "https" || u.Host == ""):
		return &InvalidMessageError{Field: field, Reason: "has to begin with https:// and a host, for one click (RFC 8058)"}
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return &InvalidMessageError{Field: field, Reason: "is not a URL that begins with https:// or http:// and a host"}
	}
	return checkListURL(field, l.URL)
}

// mailto returns the URL of Mailto.
func (l ListUnsubscribe) mailto() (string, error) {
	const field = "list_unsubscribe.mailto"
	link := l.Mailto
	if scheme, _, ok := strings.Cut(link, ":"); !ok || !strings.EqualFold(scheme, "mailto") {
		box, reason := address.Parse(link)
		if err := checkText(field, link, charset.WithoutTab); err != nil || reason != "" {
			return "", fieldError(field, link, reason)
		}
		local, domain := cutAddress(box.Addr)
		if domain == "" {
			return "", &InvalidMessageError{Field: field, Reason: "is not an address with a domain, nor a mailto: URL"}
		}
		link = "mailto:" + url.PathEscape(local) + "@" + domain
	}
	if to, _, _ := strings.Cut(link, "?"); !strings.Contains(to, "@") {
		return "", &InvalidMessageError{Field: field, Reason: "names no address"}
	}
	return link, checkListURL(field, link)
}

// checkListURL refuses what cannot stand between angle brackets on a line of the header.
func checkListURL(field, link string) error {
	if err := checkText(field, link, charset.WithoutTab); err != nil {
		return err
	}
	var reason string
	switch {
	case strings.ContainsAny(link, " <>\"\\"):
		reason = "has a blank, a quote or an angle bracket in it: write it as %20 and the like"
	case len(link) > maxListURL:
		reason = "has more than " + strconv.Itoa(maxListURL) + " bytes"
	default:
		var h mimewriter.Header
		cs, _ := charset.Lookup("")
		if reason = headerfield.Write(&h, listUnsubscribe, field, "<"+link+">", cs); reason == "" && h.Long != "" {
			reason = "makes a line of more than 998 octets"
		}
	}
	if reason != "" {
		return &InvalidMessageError{Field: field, Reason: reason}
	}
	return nil
}
