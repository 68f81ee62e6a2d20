import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletRequestWrapper;
import jakarta.servlet.http.HttpServletResponse;
import java.io.File;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.iceberg.Files;
import org.apache.iceberg.exceptions.NotFoundException;
import org.apache.iceberg.io.FileIO;
import org.apache.iceberg.io.InputFile;
import org.apache.iceberg.io.OutputFile;
import org.apache.iceberg.jdbc.JdbcCatalog;
import org.apache.iceberg.rest.RESTCatalogAdapter;
import org.apache.iceberg.rest.RESTCatalogServlet;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.Server;

/**
 * Many Iceberg REST catalogs in one process: Iceberg's own servlet over its JDBC catalog, one for each first part of a path, made when it is
 * first asked for. What the name of a catalog begins with says how it behaves:
 *
 * "turns-": it does not offer transactions/commit.
 * "guarded-": it wants the token that the credential ann:secret is good for, and refuses one in seven requests as if it had expired.
 *
 * Usage: RestCatalog PORT FOLDER
 */
public class RestCatalog extends HttpServlet {
    /** What a catalog offers that takes one table after the other. */
    private static final String[] IN_TURN = {
        "GET /v1/{prefix}/namespaces", "POST /v1/{prefix}/namespaces", "GET /v1/{prefix}/namespaces/{namespace}",
        "GET /v1/{prefix}/namespaces/{namespace}/tables", "POST /v1/{prefix}/namespaces/{namespace}/tables",
        "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}", "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}",
        "DELETE /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    };

    private final String folder;
    private final Map<String, RESTCatalogServlet> catalogs = new ConcurrentHashMap<>();
    private final AtomicInteger guarded = new AtomicInteger();

    RestCatalog(String folder) {
        this.folder = folder;
    }

    public static void main(String[] args) throws Exception {
        ServletContextHandler context = new ServletContextHandler("/");
        context.addServlet(new ServletHolder(new RestCatalog(args[1])), "/*");
        Server server = new Server(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])));
        server.setHandler(context);
        server.start();
        server.join();
    }

    private RESTCatalogServlet open(String name) {
        Map<String, String> properties = new HashMap<>();
        properties.put("uri", "jdbc:sqlite:" + folder + "/" + name + ".sqlite?journal_mode=WAL&synchronous=OFF&busy_timeout=10000");
        properties.put("jdbc.schema-version", "V1");
        properties.put("warehouse", folder + "/" + name);
        properties.put("io-impl", LocalFiles.class.getName());
        JdbcCatalog catalog = new JdbcCatalog();
        catalog.initialize(name, properties);
        return new RESTCatalogServlet(new RESTCatalogAdapter(catalog));
    }

    private static void answer(HttpServletResponse response, int status, String body) throws IOException {
        response.setStatus(status);
        response.setContentType("application/json");
        response.getWriter().write(body);
    }

    @Override
    public void service(HttpServletRequest request, HttpServletResponse response) throws ServletException, IOException {
        String uri = request.getRequestURI();
        int end = uri.indexOf('/', 1);
        String name = uri.substring(1, end < 0 ? uri.length() : end);
        String path = end < 0 ? "/" : uri.substring(end);
        if (name.startsWith("guarded-") && !path.endsWith("/oauth/tokens")) {
            boolean isShown = "Bearer client-credentials-token:sub=ann".equals(request.getHeader("Authorization"));
            if (!isShown || guarded.incrementAndGet() % 7 == 0) {
                answer(response, 401, "{\"error\":{\"message\":\"who asks?\",\"type\":\"NotAuthorizedException\",\"code\":401}}");
                return;
            }
        }
        if (name.startsWith("turns-") && path.equals("/v1/config")) {
            answer(response, 200, "{\"defaults\":{},\"overrides\":{},\"endpoints\":[\"" + String.join("\",\"", IN_TURN) + "\"]}");
            return;
        }
        if (name.startsWith("turns-") && path.equals("/v1/transactions/commit")) {
            answer(response, 404, "{\"error\":{\"message\":\"not offered\",\"type\":\"NoSuchEndpoint\",\"code\":404}}");
            return;
        }
        HttpServletRequest asked = new HttpServletRequestWrapper(request) {
            @Override
            public String getRequestURI() {
                return path;
            }
        };
        catalogs.computeIfAbsent(name, this::open).service(asked, response);
    }

    /** Reads and writes plain paths and file: URIs, without Hadoop. */
    public static class LocalFiles implements FileIO {
        private static File at(String location) {
            return new File(location.startsWith("file:") ? URI.create(location).getPath() : location);
        }

        @Override
        public InputFile newInputFile(String location) {
            return Files.localInput(at(location));
        }

        @Override
        public OutputFile newOutputFile(String location) {
            return Files.localOutput(at(location));
        }

        @Override
        public void deleteFile(String location) {
            if (!at(location).delete()) {
                throw new NotFoundException("not deleted: %s", location);
            }
        }
    }
}
