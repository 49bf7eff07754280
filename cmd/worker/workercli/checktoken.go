package workercli

import (
	"context"
	"errors"
	"strings"

	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

// replyBadToken is what a relay says to a token that it does not take (RFC 4954, 6).
const replyBadToken = 535

// tryToken asks for a token, if the backend logs in with one: what the provider says comes before what the relay says.
func tryToken(ctx context.Context, backend mailer.Backend) error {
	source := sourceOf(backend)
	if source == nil {
		return nil
	}
	_, err := source.Token(ctx)
	return err
}

// tokenHint is what a relay most often means that refuses a token which its provider has given, "" if that is not
// known. Microsoft's texts are those of learn.microsoft.com: Enable or disable SMTP AUTH in Exchange Online.
func tokenHint(s settings.Settings, err error) string {
	var refused *mailer.SendError
	if !s.OAuth.On() || !errors.As(err, &refused) || refused.Step != mailer.StepAuth || refused.Code != replyBadToken {
		return ""
	}
	user := s.Variable("EMAIL_HOST_USER")
	switch {
	case strings.Contains(refused.Text, "SmtpClientAuthentication is disabled for the Tenant"):
		return "the provider has given a token, and SMTP AUTH is switched off for the whole Microsoft 365 organisation: an administrator has to switch it on for this mailbox" +
			" (Set-CASMailbox -SmtpClientAuthenticationDisabled $false)"
	case strings.Contains(refused.Text, "SmtpClientAuthentication is disabled for the Mailbox"):
		return "the provider has given a token, and SMTP AUTH is switched off for this mailbox (Set-CASMailbox -SmtpClientAuthenticationDisabled $false)"
	case refused.Enhanced == "5.7.139":
		return "the provider has given a token, and a policy of the Microsoft 365 organisation does not allow this login"
	case s.OAuth.Provider == "microsoft" && s.OAuth.RefreshTokenFile == "":
		return "the provider has given a token, and Exchange does not let the application send as " + user + ": has the application the permission SMTP.SendAsApp with consent, is its" +
			" service principal registered in Exchange (New-ServicePrincipal), and may it use the mailbox (Add-MailboxPermission)?"
	case s.OAuth.Provider == "google" && s.OAuth.KeyFile != "":
		return "the provider has given a token, and Gmail does not take it: is " + user + " a mailbox of the Workspace that has allowed the service account?"
	}
	return "the provider has given a token, and the relay does not take it: is it for " + user + ", and is " + s.Variable("EMAIL_OAUTH_SCOPE") + " right?"
}
