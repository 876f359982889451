import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Acts on footfall's triggers: an example to copy, in Java with kafka-clients 3 or 4. Java 17 runs it from source:
 *
 * <pre>java -cp 'kafka-clients/*' TriggerConsumer.java 127.0.0.1:9092 triggers mailer</pre>
 *
 * What matters: read_committed, because an uncommitted trigger may never come to be; the ce_id
 * (group/partition/n), by which a repeated trigger is known: within a partition n only grows, so the last one acted on
 * is all there is to remember, best where the action is recorded; and committing after acting. Gaps in n are normal:
 * muted transitions and dead letters are counted too. A value with not_before was said in the user's quiet hours, at
 * once all the same: whoever sends the mail puts it off until then.
 */
public final class TriggerConsumer {
  public static void main(String[] args) {
    if (args.length < 3) {
      System.err.println("usage: TriggerConsumer BROKERS TOPIC GROUP [COUNT]");
      System.exit(2);
    }
    long count = args.length > 3 ? Long.parseLong(args[3]) : Long.MAX_VALUE;
    Properties p = new Properties();
    p.put("bootstrap.servers", args[0]);
    p.put("group.id", args[2]);
    p.put("isolation.level", "read_committed");
    p.put("auto.offset.reset", "earliest");
    p.put("enable.auto.commit", "false");
    Map<String, Long> last = new HashMap<>(); // the n acted on last, by "group/partition"
    try (KafkaConsumer<String, String> consumer =
        new KafkaConsumer<>(p, new StringDeserializer(), new StringDeserializer())) {
      consumer.subscribe(List.of(args[1]));
      for (long acted = 0; acted < count; ) {
        for (ConsumerRecord<String, String> r : consumer.poll(Duration.ofSeconds(1))) {
          Header id = r.headers().lastHeader("ce_id");
          if (id == null) {
            throw new IllegalStateException("no ce_id at offset " + r.offset() + ": not a trigger of footfall");
          }
          String text = new String(id.value(), StandardCharsets.UTF_8);
          int slash = text.lastIndexOf('/');
          String series = text.substring(0, slash);
          long n = Long.parseLong(text.substring(slash + 1));
          if (n <= last.getOrDefault(series, 0L)) {
            continue; // the same trigger again
          }
          System.out.println(r.key() + " " + r.value()); // here a mail would be sent
          last.put(series, n);
          acted++;
        }
        consumer.commitSync();
      }
    }
  }
}
