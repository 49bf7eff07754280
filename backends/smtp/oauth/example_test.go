package oauth_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/mailpouch/mailpouch/backends/smtp"
	"github.com/mailpouch/mailpouch/backends/smtp/oauth"
	"github.com/mailpouch/mailpouch/internal/testserver/provider"
)

// A program gives its backends one source, which gets a token when the first of them connects.
func Example() {
	login := provider.New() // the provider, here of this test
	source, err := oauth.New(oauth.Config{
		Provider: oauth.Microsoft, Tenant: "contoso.onmicrosoft.com", ClientID: provider.ClientID, ClientSecret: provider.ClientSecret,
		TokenURL: "https://login.example.com/token", // leave it out
		Client:   login.Client(),                    // and this
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	source.Watch(func(e oauth.Event) { fmt.Println("asked for a token, error:", e.Err) })
	backend, err := smtp.New(smtp.Config{
		Addrs: []string{"smtp.office365.com"}, TLS: smtp.TLSStart,
		Username: "shop@contoso.com", TokenSource: source, AuthMechanisms: source.Mechanisms(),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = backend.Close() }()

	for range 2 { // what each connection does before it is opened
		token, err := source.Token(context.Background())
		fmt.Println(login.Good(token), err)
	}
	// Output:
	// asked for a token, error: <nil>
	// true <nil>
	// true <nil>
}

// An Error says whether a person has to change something.
func ExampleError() {
	login := provider.New()
	source, err := oauth.New(oauth.Config{
		Provider: oauth.Microsoft, ClientID: provider.ClientID, ClientSecret: "a wrong one", TokenURL: "https://login.example.com/token", Client: login.Client(),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = source.Token(context.Background())
	var refused *oauth.Error
	if errors.As(err, &refused) {
		fmt.Println(refused.Refused, refused.Code)
		fmt.Println(refused.Hint)
	}
	// Output:
	// true invalid_client
	// EMAIL_OAUTH_CLIENT_SECRET has to be the secret's value, not its ID
}
