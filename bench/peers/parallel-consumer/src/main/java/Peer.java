import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.ParallelConsumerOptions.ProcessingOrder;
import io.confluent.parallelconsumer.ParallelStreamProcessor;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Confluent Parallel Consumer, KEY ordering, 100 threads. With an output topic it produces one record per task. */
public final class Peer {
    private static final ConcurrentHashMap<String, long[]> GROUPS = new ConcurrentHashMap<>();
    private static final AtomicLong violations = new AtomicLong();
    private static final AtomicLong first = new AtomicLong();
    private static long handlerNanos;

    public static void main(String[] args) throws Exception {
        String bootstrap = System.getenv("BENCH_BOOTSTRAP");
        String topic = System.getenv("BENCH_TOPIC");
        String out = System.getenv().getOrDefault("BENCH_OUT_TOPIC", "");
        int tasks = Integer.parseInt(System.getenv("BENCH_TASKS"));
        handlerNanos = (long) (Double.parseDouble(System.getenv("BENCH_HANDLER_MS")) * 1e6);

        Properties conf = new Properties();
        conf.put("bootstrap.servers", bootstrap);
        conf.put("group.id", System.getenv("BENCH_GROUP"));
        conf.put("auto.offset.reset", "earliest");
        conf.put("enable.auto.commit", "false");
        var consumer = new KafkaConsumer<>(conf, new StringDeserializer(), new ByteArrayDeserializer());
        var options = ParallelConsumerOptions.<String, byte[]>builder()
            .ordering(ProcessingOrder.KEY)
            .maxConcurrency(100)
            .consumer(consumer);
        CountDownLatch left = new CountDownLatch(tasks);
        AtomicLong last = new AtomicLong();
        if (!out.isEmpty()) {
            Properties produce = new Properties();
            produce.put("bootstrap.servers", bootstrap);
            produce.put("acks", "all");
            options.producer(new KafkaProducer<>(produce, new StringSerializer(), new ByteArraySerializer()));
        }
        ParallelStreamProcessor<String, byte[]> processor =
            ParallelStreamProcessor.createEosStreamProcessor(options.build());
        processor.subscribe(List.of(topic));
        if (out.isEmpty()) {
            processor.poll(context -> {
                handle(context.getSingleConsumerRecord());
                last.set(System.nanoTime());
                left.countDown();
            });
        } else {
            // The library waits for each record's acknowledgement before the task counts as done.
            processor.pollAndProduce(
                context -> {
                    ConsumerRecord<String, byte[]> task = context.getSingleConsumerRecord();
                    handle(task);
                    return new ProducerRecord<>(out, task.partition(), task.key(), task.value());
                },
                produced -> {
                    last.set(System.nanoTime());
                    left.countDown();
                });
        }
        left.await();
        double seconds = (last.get() - first.get()) / 1e9;
        System.out.printf(
            "{\"tasks\":%d,\"seconds\":%.4f,\"order_violations\":%d}%n", tasks, seconds, violations.get());
        System.out.flush();
        Runtime.getRuntime().halt(0); // closing takes seconds and measures nothing
    }

    private static void handle(ConsumerRecord<String, byte[]> task) {
        long now = System.nanoTime();
        first.compareAndSet(0, now);
        long[] group = GROUPS.computeIfAbsent(task.key(), key -> new long[] {-1, 0});
        synchronized (group) { // {last offset, running}
            if (task.offset() <= group[0] || group[1] != 0) {
                violations.incrementAndGet();
            }
            group[0] = task.offset();
            group[1] = 1;
        }
        if (handlerNanos > 0) {
            try {
                Thread.sleep(handlerNanos / 1_000_000, (int) (handlerNanos % 1_000_000));
            } catch (InterruptedException error) {
                throw new IllegalStateException(error);
            }
        }
        synchronized (group) {
            group[1] = 0;
        }
    }
}
