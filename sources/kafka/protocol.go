package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// Protocol is how a group decides who owns which partition.
type Protocol string

const (
	// Classic has one of the members assign; at every change all of them join again,
	// and the generation counts that.
	Classic Protocol = "classic"

	// Consumer has the broker assign (KIP-848, Kafka 4). It asks each member by itself
	// to give partitions up, and gives none away before its member has said that it
	// has. The generation is each member's own, and moves on without a callback.
	Consumer Protocol = "consumer"
)

// Options make a group member's client follow the protocol.
func (p Protocol) Options() []kgo.Opt {
	if p != Consumer {
		return []kgo.Opt{kgo.Balancers(kgo.CooperativeStickyBalancer())}
	}
	// Where the broker does not serve the protocol, kgo joins by the classic one
	// instead, with the same balancer, which is not cooperative: commits would then
	// be fenced by rules that do not hold. So it must not know how.
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(int16(kmsg.JoinGroup), -1)
	return []kgo.Opt{
		kgo.ServerSideBalancer(),
		kgo.Balancers(kgo.StickyBalancer()), // the broker's uniform assignor
		kgo.MaxVersions(versions),
	}
}

// features are the finalized levels of what brokers can do; 0 where they do not say.
type features struct {
	transactions int16 // 2: TxnOffsetCommit adds the offsets partition by itself (KIP-890)
	groups       int16 // 1: Consumer is served
}

// Supported tells whether the brokers serve the protocol; if not, the error says
// what to do.
func (p Protocol) Supported(ctx context.Context, cl *kgo.Client) error {
	f, err := featuresOf(ctx, cl)
	if err != nil {
		return err
	}
	return p.supported(f)
}

func (p Protocol) supported(f features) error {
	if p == Consumer && f.groups < 1 {
		return errors.New("kafka: the brokers do not serve the group protocol " + string(Consumer) + " (KIP-848, group.version is 0): " +
			"use Kafka 4 and kafka-features.sh upgrade --feature group.version=1, or the protocol " + string(Classic))
	}
	return nil
}

// featuresOf asks the brokers what they can do.
func featuresOf(ctx context.Context, cl *kgo.Client) (f features, err error) {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "footfall", "1"
	resp, err := req.RequestWith(ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return f, fmt.Errorf("kafka: ask for the brokers' features: %w", err)
	}
	for _, have := range resp.FinalizedFeatures {
		switch have.Name {
		case "transaction.version":
			f.transactions = have.MaxVersionLevel
		case "group.version":
			f.groups = have.MaxVersionLevel
		}
	}
	return f, nil
}
