package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"footfall/schemas"
	"footfall/sources/kafka"
)

// Instances are found by what they commit: the metadata of every offset commit holds
// the address of who made it (design 5). No registry is needed, and none can disagree
// with the group.

// marks reads what the group has committed, by partition. Partitions without a commit
// are left out.
func marks(ctx context.Context, c *Config, cl *kgo.Client) (map[int32]schemas.Mark, error) {
	offsets, err := kadm.NewClient(cl).FetchOffsets(ctx, c.Kafka.Group)
	for attempt := 1; kerr.IsRetriable(err) && attempt < 10; attempt++ { // a cluster that has just started has no coordinator yet
		backoff(ctx, attempt)
		offsets, err = kadm.NewClient(cl).FetchOffsets(ctx, c.Kafka.Group)
	}
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		lack := kafka.Lack{On: kafka.OnGroup, Name: c.Kafka.Group, Do: canDescribe}
		return nil, c.permit(fmt.Errorf("kafka: offsets of group %s: %w", c.Kafka.Group, lack.Named(err)))
	}
	found := map[int32]schemas.Mark{}
	for partition, o := range offsets[c.Kafka.Topics.Events] {
		if o.Err != nil {
			return nil, fmt.Errorf("kafka: offset of group %s in %s/%d: %w", c.Kafka.Group, c.Kafka.Topics.Events, partition, o.Err)
		}
		if o.At < 0 {
			continue
		}
		m, err := schemas.ParseMark(partition, o.At, o.Metadata)
		if err != nil {
			return nil, err
		}
		found[partition] = m
	}
	return found, nil
}

// answerError is an answer other than 200.
type answerError struct {
	code int
	text string
}

func (e *answerError) Error() string { return e.text }

// ask gets a JSON answer from an instance.
func ask(ctx context.Context, c *Config, address, path string, query url.Values, into any) error {
	u := url.URL{Scheme: "http", Host: address, Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	if c.HTTP.Token != "" {
		req.Header.Set("Authorization", "Bearer "+string(c.HTTP.Token))
	}
	client := http.Client{
		Timeout: 5 * time.Second,
		// The token is for the instance, not for whom it may send us to, or a proxy.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{DisableKeepAlives: true},
	}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("instance at %s does not answer: %w", address, errors.Unwrap(err))
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("instance at %s: %w", address, err)
	}
	if res.StatusCode != http.StatusOK {
		var e ErrorAnswer
		if json.Unmarshal(body, &e) != nil || e.Error == "" {
			e.Error = res.Status
		}
		return &answerError{res.StatusCode, fmt.Sprintf("instance at %s: %s", address, e.Error)}
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("instance at %s: answer of %s: %w; is http.advertise right?", address, path, err)
	}
	return nil
}

// askAll asks every instance that has committed for its status, and returns also why
// some don't answer, and how many members the group has. One that no longer owns anything
// says so by its answer.
func askAll(ctx context.Context, c *Config) (answers []StatusAnswer, unreachable []error, members int, err error) {
	cl, err := c.connect(ctx)
	if err != nil {
		return nil, nil, 0, err
	}
	defer cl.Close()
	committed, err := marks(ctx, c, cl)
	if err != nil {
		return nil, nil, 0, err
	}
	if members, err = memberCount(ctx, c, cl); err != nil || members == 0 {
		return nil, nil, 0, err
	}
	var addresses []string
	for _, m := range committed {
		if m.Address != "" && !slices.Contains(addresses, m.Address) {
			addresses = append(addresses, m.Address)
		}
	}
	slices.Sort(addresses)
	for _, address := range addresses {
		var a StatusAnswer
		if err := ask(ctx, c, address, "/status", nil, &a); err != nil {
			unreachable = append(unreachable, err)
			continue
		}
		answers = append(answers, a)
	}
	return answers, unreachable, members, nil
}

// memberCount is how many members the group has now, by whichever protocol. Each of
// the two ways to ask says of a group of the other protocol that it is not there.
func memberCount(ctx context.Context, c *Config, cl *kgo.Client) (int, error) {
	adm := kadm.NewClient(cl)
	classic, err := adm.DescribeGroups(ctx, c.Kafka.Group)
	if err != nil {
		return 0, fmt.Errorf("kafka: group %s: %w", c.Kafka.Group, err)
	}
	if n := len(classic[c.Kafka.Group].Members); n > 0 {
		return n, nil
	}
	if unserved := kafka.Consumer.Supported(ctx, cl); unserved != nil {
		return 0, nil //nolint:nilerr // brokers that do not know the other protocol have no group of it
	}
	consumer, err := adm.DescribeConsumerGroups(ctx, c.Kafka.Group)
	if err != nil {
		return 0, fmt.Errorf("kafka: group %s: %w", c.Kafka.Group, err)
	}
	return len(consumer[c.Kafka.Group].Members), nil
}
