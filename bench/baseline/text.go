package baseline

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// words are those that the texts are made of: common ones, so that a text packs about as
// well as one that somebody wrote.
var words = strings.Fields(`the of and to in a is that for it as was with be by on not he this are or his from at which but have an had they
	you were their one all we can her has there been if more when will would who so no out up into do time than only some other new could these two may then
	first any now such like our over man me even most made after also did many before must through back years where much your way well down should because each
	just those people how too little state good very make world still own see men work long here get both between life being under never day same another know
	while last might us great old year off come since against go came right used take three order parcel invoice delivery customer address account payment
	service please contact today tomorrow street number price total shipped arrived warehouse support question thank regards`)

// text is n bytes of words in lines, or a few less. The same seed makes the same text.
func text(n int, seed uint64, newline string) string {
	r := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a text that is always the same
	var out, line strings.Builder
	for {
		word := words[r.IntN(len(words))]
		if line.Len()+len(word) > 70 {
			if out.Len()+line.Len()+len(newline) > n {
				return out.String()
			}
			out.WriteString(strings.TrimSpace(line.String()) + newline)
			line.Reset()
		}
		line.WriteString(word + " ")
	}
}

// Sender and Subject are those of all mails.
const (
	Sender  = "shop@example.com"
	Subject = "Your order has been shipped"
)

// Recipient is who gets mail number i.
func Recipient(i int) string { return fmt.Sprintf("u%d@example.com", i) }

var plain = text(1950, 1, "\n")

// Body is the text of mail number i, of 2 kB: what most mails of a shop are, the same but for
// the beginning.
func Body(i int) string { return fmt.Sprintf("Dear customer %d,\n\n%s", i, plain) }

var page = func() string {
	var out strings.Builder
	for i := range uint64(22) {
		fmt.Fprintf(&out, "<tr><td style=\"padding: 12px 24px; font-family: Arial, Helvetica, sans-serif; font-size: 14px; line-height: 20px;\"><h2 "+
			"style=\"margin: 0 0 8px\">%s</h2>\n<p style=\"margin: 0 0 16px\">%s</p></td></tr>\n", strings.TrimSpace(text(60, 100+i, " ")), text(700, 200+i, "\n"))
	}
	return out.String()
}()

// HTML is a newsletter of 20 kB.
func HTML(i int) string {
	return fmt.Sprintf("<!DOCTYPE html>\n<html><body><p>Dear customer %d,</p>\n<table width=\"600\" cellpadding=\"0\" cellspacing=\"0\">\n%s</table></body></html>\n", i, page)
}
